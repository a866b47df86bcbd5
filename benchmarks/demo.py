"""The whole workflow on a small real model: train yolov5n on drawn shapes, quantize it, export it, compare.

Everything is written to demo/ in this repository. Training is skipped if its weights exist already; remove demo/ to start
from scratch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

from bundle import BUNDLE
from command_lines import flagged

from checkouts import HYP, install_bundle, make_checkout
from shapes import draw_dataset

DEMO = BUNDLE / "demo"
CHECKOUT = DEMO / "yolov5"
DATA = DEMO / "shapes"
WEIGHTS = DEMO / "float.pt"
IMAGE_SIZE = 160
EPOCHS = 12  # hyp-shapes.yaml is made for it

# otherwise waiting OpenMP threads spin and take cores from working ones
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    "OMP_WAIT_POLICY": "PASSIVE",
    "YOLOv5_AUTOINSTALL": "false",
}


def run(*arguments: object) -> None:
    """Run Python in the checkout, showing the command as a user would type it; exit where it fails."""
    words = [str(argument) for argument in arguments]
    print("\n$ python " + " ".join(word.replace(str(DEMO), "..") or "''" for word in words), flush=True)
    done = subprocess.run([sys.executable, *words], cwd=str(CHECKOUT), env=ENVIRONMENT)
    if done.returncode:
        sys.exit(f"error: the command above failed with exit code {done.returncode}; its output is above")


def step(title: str) -> None:
    """Print a heading."""
    print(f"\n=== {title}", flush=True)


def train() -> None:
    """Draw the data set and train yolov5n on it with upstream's own train.py."""
    for path in (CHECKOUT, DATA):
        shutil.rmtree(path, ignore_errors=True)
    step("A yolov5 checkout, with the bundle copied into it")
    make_checkout("yolov5", CHECKOUT)
    install_bundle(CHECKOUT)
    print(f"{CHECKOUT}")
    step("Data: 1200 drawn images")
    data = draw_dataset(DATA, train=1000, val=200, size=192, classes=6, objects=5, difficulty=0.3)
    print(data)
    step("Train yolov5n from random weights with upstream's train.py: some minutes")
    flags: dict[str, object] = {
        "--data": data,
        "--cfg": "models/yolov5n.yaml",
        "--weights": "",
        "--hyp": HYP,
        "--img": IMAGE_SIZE,
        "--epochs": EPOCHS,
        "--batch-size": 16,
        "--optimizer": "AdamW",
        "--noautoanchor": None,
        "--noval": None,
        "--noplots": None,
        "--cache": None,
        "--workers": 2,
        "--device": "cpu",
        "--project": DEMO / "train",
        "--name": "run",
        "--exist-ok": None,
    }
    run("-m", "quantization.upstream", "train.py", *flagged(flags))
    shutil.copyfile(DEMO / "train" / "run" / "weights" / "best.pt", WEIGHTS)


def quantize() -> None:
    """The bundle's own commands, as the README shows them."""
    script = "scripts/qat-yolov5.py"
    common = ["--data", DATA / "data.yaml", "--imgsz", IMAGE_SIZE, "--square", "--device", "cpu", "--workers", 2]
    step("Quantize: calibrate (PTQ), then fine-tune (QAT)")
    flags: dict[str, object] = {
        "--ptq": DEMO / "ptq.pt",
        "--qat": DEMO / "qat.pt",
        "--eval-origin": None,
        "--eval-ptq": None,
        "--summary": DEMO / "summary.json",
        "--batch-size": 16,
        "--calib-batches": 16,
        "--epochs": 2,
        "--iters": 30,
    }
    run(script, "quantize", WEIGHTS, *flagged(flags), *common)
    step("Export to ONNX with QuantizeLinear and DequantizeLinear")
    run(script, "export", DEMO / "qat.pt", "--size", IMAGE_SIZE, "--save", DEMO / "qat.onnx", "--dynamic")
    step("Evaluate the ONNX with ONNX Runtime")
    run(script, "test", DEMO / "qat.onnx", "--save-json", DEMO / "onnx.json", "--batch-size", 16, *common)


def results() -> list[tuple[str, float, float]]:
    """Rows of the table: name, mAP@0.5:0.95, mAP@0.5."""
    figures: dict[str, dict[str, float]] = json.loads((DEMO / "summary.json").read_text())["figures"]
    figures["onnx"] = json.loads((DEMO / "onnx.json").read_text())
    titles = {"float": "float", "ptq": "PTQ", "qat": "QAT", "onnx": "QAT in ONNX Runtime"}
    return [(title, figures[key]["map"], figures[key]["map50"]) for key, title in titles.items()]


def main() -> None:
    """Run the demo."""
    start = time.time()
    DEMO.mkdir(exist_ok=True)
    if WEIGHTS.is_file():
        print(f"{WEIGHTS} exists: training skipped (remove {DEMO} to start from scratch)")
        install_bundle(CHECKOUT)
    else:
        train()
    quantize()
    step(f"Done in {(time.time() - start) / 60:.1f} minutes")
    print(f"\n{'':22}{'mAP@0.5:0.95':>14}{'mAP@0.5':>10}")
    for title, map95, map50 in results():
        print(f"{title:22}{map95:14.4f}{map50:10.4f}")
    files = {
        "yolov5/": "the checkout, with quantization/ and scripts/ in it",
        "shapes/": "the data set",
        "float.pt": "the trained model",
        "ptq.pt": "calibrated",
        "qat.pt": "fine-tuned",
        "qat.onnx": "what TensorRT builds from",
        "summary.json": "every figure, option, scale and scale group",
    }
    print(f"\nIn {DEMO}:")
    for name, what in files.items():
        print(f"  {name:14}{what}")
    print(f"""
Next, with your own model, in your checkout of yolov5 v7.0 (or yolov7 and qat-yolov7.py):
  cp -r {BUNDLE}/quantization {BUNDLE}/scripts /path/to/yolov5 && cd /path/to/yolov5
  python scripts/qat-yolov5.py quantize best.pt --data data.yaml --ptq ptq.pt --qat qat.pt --eval-origin --eval-ptq
  python scripts/qat-yolov5.py export qat.pt --size 640 --save qat.onnx --dynamic
  trtexec --onnx=qat.onnx --fp16 --int8 --saveEngine=qat.engine""")


if __name__ == "__main__":
    main()
