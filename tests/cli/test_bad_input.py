"""Bad input gives one line with the remedy, exit code 2, no traceback, and writes nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

import pytest
import torch

from support.workflow import CLASSES, IMAGE_SIZE, TASKS, run_python

Checkouts = Callable[[str], Path]


@pytest.fixture(scope="module")
def world(checkouts: Checkouts, random_yolov7_tiny: Path, shapes: Path) -> dict[str, Path]:
    """A checkout, and damaged copies of what a user might pass."""
    checkout = checkouts("yolov7")
    (checkout / "text.pt").write_text("no checkpoint")
    torch.save({"a": 1}, str(checkout / "dict.pt"))
    run_python(checkout, TASKS, "damage", random_yolov7_tiny, "state.pt", "state_dict")
    run_python(checkout, TASKS, "damage", random_yolov7_tiny, "nan.pt", "nan")
    run_python(
        checkout,
        "scripts/qat-yolov7.py",
        "quantize",
        random_yolov7_tiny,
        "--cocodir",
        shapes,
        "--imgsz",
        64,
        "--ptq",
        "done.pt",
        "--calib-batches",
        1,
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--backend",
        "native",
    )
    run_python(checkout, TASKS, "damage", "done.pt", "uncalibrated.pt", "uncalibrated")
    run_python(checkout, TASKS, "make_random", "cfg/training/yolov7-tiny.yaml", "eighty.pt", 80)
    wrong = checkout.parent / "wrong"
    (wrong / "labels").mkdir(parents=True)
    (wrong / "images").symlink_to(shapes / "images" / "val2017", target_is_directory=True)
    for image in (wrong / "images").iterdir():
        (wrong / "labels" / f"{image.stem}.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    (wrong / "data.yaml").write_text("train: images\nval: images\nnc: 3\nnames: [a, b, c]\n")
    bare = checkout.parent / "bare"  # images for PTQ, labels for the evaluation alone
    (bare / "val" / "labels").mkdir(parents=True)
    for part in ("train", "val"):
        # a link would lead to the labels beside its target, as upstream resolves it
        shutil.copytree(shapes / "images" / "val2017", bare / part / "images")
    for label in (shapes / "labels" / "val2017").iterdir():
        (bare / "val" / "labels" / label.name).write_text(label.read_text())
    (bare / "data.yaml").write_text("train: train/images\nval: val/images\nnc: 3\nnames: [a, b, c]\n")
    return {"bare": bare, "checkout": checkout, "good": random_yolov7_tiny, "wrong": wrong, "shapes": shapes}


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


CASES = {
    "weight missing": ("quantize none.pt --cocodir {shapes}", "none.pt does not exist"),
    "weight is text": ("quantize text.pt --cocodir {shapes}", "text.pt is no PyTorch checkpoint"),
    "weight is a dictionary": ("export dict.pt", "dict.pt is no YOLO checkpoint"),
    "weight is a state dict": ("export state.pt", "state.pt is no YOLO checkpoint"),
    "weight is quantized": ("quantize done.pt --cocodir {shapes}", "done.pt is quantized already"),
    "weight is NaN": ("quantize nan.pt --cocodir {shapes} --device cpu", "NaN"),
    # the data set is looked for before the weight, which takes longer to load
    "no data": ("quantize text.pt", "--cocodir DIR or --data"),
    "cocodir missing": ("test text.pt --cocodir none", "--cocodir none is not a folder"),
    "yaml missing": ("sensitive text.pt --data none.yaml", "--data none.yaml does not exist"),
    "class count": ("test eighty.pt --cocodir {shapes}", "has 3 classes, the model has 80"),
    "labels out of range": ("test {good} --data {wrong}/data.yaml --imgsz 64", "class 7 is out of range"),
    "pattern syntax": ("quantize {good} --cocodir {shapes} --ignore-policy model.(", "is no regular expression"),
    "pattern without match": ("quantize {good} --cocodir {shapes} --ignore-policy conv", "matches no module"),
    "pattern leaves nothing": (
        "quantize {good} --cocodir {shapes} --imgsz 64 --eval-origin --ptq new/ptq.pt --ignore-policy .*",
        "nothing to quantize",
    ),
    "imgsz": ("quantize {good} --cocodir {shapes} --imgsz 100", "--imgsz 100 is no multiple"),
    "export size": ("export {good} --size 100 --save new/a.onnx", "--size 100 is no multiple"),
    "export three sizes": ("export {good} --size 64 64 64", "--size takes N or H W"),
    "opset": ("export {good} --size 64 --opset 11", "--opset 11"),
    "never calibrated": ("export uncalibrated.pt --size 64", "never calibrated"),
    "test uncalibrated": ("test uncalibrated.pt --cocodir {shapes} --imgsz 64", "never calibrated"),
    "output is a folder": ("quantize {good} --cocodir {shapes} --ptq models", "--ptq models is a folder"),
    "output is the input": ("quantize {good} --cocodir {shapes} --ptq {good}", "would be overwritten"),
    "outputs are the same": ("quantize {good} --cocodir {shapes} --ptq a.pt --qat a.pt", "would be overwritten"),
    "output under a file": ("export {good} --size 64 --save text.pt/a.onnx", "cannot be written"),
    "threshold": ("test {good} --cocodir {shapes} --nmsthres 7", "--nmsthres 7"),
    "device unknown": ("test {good} --cocodir {shapes} --device gpu", "--device gpu"),
    "no labels": (
        "quantize {good} --data {bare}/data.yaml --imgsz 64 --qat qat.pt --task-weight 1",
        "no training image has any",
    ),
    "onnx missing": ("test none.onnx --cocodir {shapes}", "none.onnx does not exist"),
}
if not torch.cuda.is_available():
    CASES["no cuda"] = ("test {good} --cocodir {shapes} --device cuda:0", "--device cuda:0: torch")


@pytest.mark.parametrize("case", sorted(CASES))
def test_one_clear_line(world: dict[str, Path], case: str) -> None:
    arguments, message = CASES[case]
    before = files(world["checkout"])
    done = run_python(world["checkout"], "scripts/qat-yolov7.py", *arguments.format(**world).split(), code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [done.stderr.splitlines()[-1]]
    assert files(world["checkout"]) == before


def test_backend_missing(world: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    if importlib.util.find_spec("pytorch_quantization") is not None:
        monkeypatch.delenv("PYTHONPATH")
    done = run_python(
        world["checkout"],
        "scripts/qat-yolov7.py",
        "quantize",
        world["good"],
        "--cocodir",
        world["shapes"],
        "--backend",
        "pytorch-quantization",
        code=2,
    )
    assert "--backend native" in done.stderr and "Traceback" not in done.stderr


def test_wrong_checkout_and_none(checkouts: Checkouts, tmp_path: Path) -> None:
    done = run_python(checkouts("yolov7"), "scripts/qat-yolov5.py", "export", "x.pt", code=2)
    assert "is a yolov7 checkout: run scripts/qat-yolov7.py" in done.stderr
    from checkouts import install_bundle

    install_bundle(tmp_path)
    done = run_python(tmp_path, "scripts/qat-yolov5.py", "export", "x.pt", code=2)
    assert "is no yolov5 checkout" in done.stderr and "cp -r" in done.stderr


def test_other_upstreams_weights(checkouts: Checkouts, random_yolov7_tiny: Path) -> None:
    done = run_python(
        checkouts("yolov5"), "scripts/qat-yolov5.py", "export", random_yolov7_tiny, "--size", IMAGE_SIZE, code=2
    )
    assert "was not saved by yolov5" in done.stderr and CLASSES == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(world: dict[str, Path], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run_python(
        world["checkout"],
        "scripts/qat-yolov7.py",
        "export",
        world["good"],
        "--size",
        64,
        "--save",
        tmp_path / "a.onnx",
        code=2,
    )
    assert "cannot be written" in done.stderr


def test_without_labels_qat_goes_by_the_float_model(world: dict[str, Path]) -> None:
    done = run_python(
        world["checkout"],
        "scripts/qat-yolov7.py",
        "quantize",
        world["good"],
        "--data",
        world["bare"] / "data.yaml",
        "--imgsz",
        64,
        "--qat",
        "bare.pt",
        "--ptq",
        "bare-ptq.pt",
        "--epochs",
        1,
        "--iters",
        1,
        "--calib-batches",
        1,
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--square",
    )
    assert "the float model's outputs alone: --task-weight needs labels" in done.stdout + done.stderr
    assert (world["checkout"] / "bare.pt").is_file()
