"""Float ONNX files through quantize-onnx.py and other tools: python any_onnx.py MODEL.onnx ... --images calib.npy --save DIR.

For each file and tool: seconds and peak memory of the tool's process, what the preflight says of its ONNX, the ratio of the
outputs to their error in ONNX Runtime, and the mAP if a data set is named. Other tools need their packages in ``--python``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bundle
import numpy as np
from onnx import ModelProto

from quantization.errors import UserError
from quantization.onnx_graph.load import load_onnx
from quantization.onnx_quantize.comparison import compared_tensors, tensor_ratios
from quantization.onnx_quantize.float_model import FloatModel
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.report import preflight

OURS = "quant-tools"
TOOLS = (OURS, "onnxruntime", "modelopt")
COMPARED = 8  # images
POLL = 0.05  # seconds between looks at the memory


def command_of(tool: str, model: str, save: Path, options: argparse.Namespace) -> list[str]:
    """The command line of a tool."""
    if tool == OURS:
        script = bundle.BUNDLE / "scripts" / "quantize-onnx.py"
        return [
            sys.executable,
            str(script),
            model,
            "--images",
            options.images,
            "--save",
            str(save),
            "--batch-size",
            "8",
        ]
    peers = bundle.BUNDLE / "benchmarks" / "any_onnx_peers.py"
    return [options.python, str(peers), tool, model, options.images, str(save)]


def measured(command: list[str], log: Path) -> dict[str, Any]:
    """Run a command: wall and processor seconds, and the peak of its memory without file pages, in MB."""
    start = time.perf_counter()
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        peak = [0]
        watcher = threading.Thread(target=watch, args=(process, peak))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1
        watcher.join()
    return {
        "exit": process.returncode,
        "seconds": time.perf_counter() - start,
        "cpu seconds": usage.ru_utime + usage.ru_stime,
        "peak MB": peak[0] / 1e6,
    }


def watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    """Follow the anonymous memory of a process, which leaves out the images mapped from their file."""
    while process.returncode is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        rows = [line for line in status.splitlines() if line.startswith("RssAnon")]
        if not rows:
            return  # it has ended
        peak[0] = max(peak[0], int(rows[0].split()[1]) * 1024)
        time.sleep(POLL)


def judged(source: FloatModel, result: ModelProto, images: np.ndarray) -> dict[str, Any]:
    """What the preflight and ONNX Runtime say of a quantized file."""
    report = preflight(result)
    found: dict[str, Any] = {severity: 0 for severity in ("fail", "warn")}
    for finding in report.findings:
        found[finding.severity] = found.get(finding.severity, 0) + 1
    found["INT8 layers"] = f"{report.int8_layers} of {report.layers}"
    found["Q kernels"] = sum(report.separate_q.values())
    found["Reformats"] = report.type_changing + report.requantize
    models = (source.source, result)
    ratios = tensor_ratios(models, source, images, compared_tensors(models, QdqGraph(source.model)))
    return {**found, "SQNR dB": min(ratios.values())}


def mean_precision(model: Path, data: str) -> float:
    """mAP@0.5:0.95 in ONNX Runtime."""
    report = model.with_suffix(".map.json")
    script = bundle.BUNDLE / "scripts" / "eval-engine.py"
    arguments = ["--data", data, "--nmsthres", "0.6", "--save-json", str(report)]
    subprocess.run([sys.executable, str(script), str(model), *arguments], check=True, stdout=subprocess.DEVNULL)
    return float(json.loads(report.read_text(encoding="utf-8"))["map"])


def row(model: str, tool: str, options: argparse.Namespace) -> dict[str, Any]:
    """One file through one tool."""
    save = options.save / f"{Path(model).stem}-{tool}.onnx"
    result = {
        "model": Path(model).stem,
        "tool": tool,
        **measured(command_of(tool, model, save, options), save.with_suffix(".log")),
    }
    if not save.is_file():
        return result
    images = np.asarray(np.load(options.images, mmap_mode="r")[:COMPARED])
    try:
        result.update(judged(FloatModel(model), load_onnx(str(save)), images))
        if options.data:
            result["mAP"] = mean_precision(save, options.data)
    except UserError as error:
        result["error"] = str(error)
    return result


def main() -> None:
    """Run all, and print a row for each as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--images", required=True, help=".npy of (N, 3, H, W), float32")
    parser.add_argument("--data", help="data.yaml, to measure the mAP too")
    parser.add_argument("--save", type=Path, default=Path("any-onnx"), help="folder to write to")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--python", default=sys.executable, help="Python that has the other tools")
    options = parser.parse_args()
    options.save.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        for tool in options.tools:
            print(json.dumps(row(model, tool, options)), flush=True)


if __name__ == "__main__":
    main()
