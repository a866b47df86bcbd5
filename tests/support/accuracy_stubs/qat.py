"""Stands in for scripts/qat-yolov5.py.

A checkpoint is a text such as "seed 1|mse|qat"; its mAP is 0.6 + 0.01 * seed less what its words cost. The bundle's
stub.json says which bundle it is, where calls are noted, and which command, if any, fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COSTS = {
    "mse": 0.002,
    "max": 0.03,
    "mosaics": 0.004,
    "qat": -0.001,
    "lsq": -0.0005,
    "published": 0.01,
    "onnx": 0.0001,
}


def value(arguments: list[str], flag: str) -> str:
    """What follows a flag."""
    return arguments[arguments.index(flag) + 1]


def quantize(arguments: list[str], text: str, stub: dict[str, Any]) -> None:
    """Write the checkpoints, as our bundle or as the published one does."""
    data = Path(value(arguments, "--cocodir"))
    assert (data / "train2017.txt").is_file()
    assert (data / "annotations" / "instances_val2017.json").is_file()
    if stub["kind"] == "published":
        assert not {"--square", "--imgsz", "--calib-method", "--summary"} & set(arguments), arguments
        assert Path("models/yolo.py").is_file() and Path("scripts/qat-yolov5.py").is_file()  # run from its checkout
        text += "|published"
    else:
        text += "|" + value(arguments, "--calib-method") + ("|mosaics" if "mosaics" in str(data) else "")
    Path(value(arguments, "--ptq")).write_text(text)
    if stub["fails_at"] in arguments:
        sys.exit("Traceback\nValueError: 3 channels\n")
    if "--qat" in arguments:
        text += "|qat" + ("|lsq" if "--learn-scales" in arguments else "")
        Path(value(arguments, "--qat")).write_text(text)


def evaluate(arguments: list[str], text: str, stub: dict[str, Any]) -> None:
    """Write the mAP that the checkpoint's words give; all bundles have one evaluator."""
    assert stub["kind"] == "own"
    assert value(arguments, "--nmsthres") == "0.65" and "-test" in value(arguments, "--cocodir")
    words = text.split("|")
    seed = int(words[0].split()[1])
    figure = 0.6 + 0.01 * seed - sum(COSTS[word] for word in words[1:]) * (1 + seed)
    Path(value(arguments, "--save-json")).write_text(json.dumps({"map": figure, "map50": figure + 0.2}))


def main(arguments: list[str]) -> None:
    """Note the call and obey it."""
    stub = json.loads((Path(__file__).resolve().parents[1] / "quantization" / "stub.json").read_text())
    with open(stub["calls"], "a", encoding="utf-8") as calls:
        calls.write(" ".join(arguments) + "\n")
    text = Path(arguments[1]).read_text()
    assert value(arguments, "--device") == "cpu"
    if arguments[0] == "quantize":
        quantize(arguments, text, stub)
    elif arguments[0] == "export":
        Path(value(arguments, "--save")).write_text(text + "|onnx")
    else:
        evaluate(arguments, text, stub)


if __name__ == "__main__":
    main(sys.argv[1:])
