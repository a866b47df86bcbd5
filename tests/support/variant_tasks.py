"""``export --variants`` in a checkout: ``python variant_tasks.py TASK ARGUMENTS``; results are JSON on the last line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Sequence

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

import numpy as np
import onnx
from onnx import numpy_helper

from quantization.cli import parser

SMALL = ("--size", "64", "--device", "cpu")


def scales(file: str) -> list[Any]:
    """The scales of all QuantizeLinear, in the order of the graph."""
    graph = onnx.load(file).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return [values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]


def some_variants(names: Sequence[str]) -> None:
    """Leave these in the table, for the time that others take."""
    from quantization.cli import variants

    variants.VARIANTS = tuple(variant for variant in variants.VARIANTS if variant.name in names)


def of_float(weight: str, data: str, folder: str, names: str, alone: str) -> Any:
    """Write variants of a float checkpoint, make some of them alone as variants.json says, and compare.

    Returns:
        What variants.json lists, and for each of ``alone`` whether all scales are equal, and how many there are.
    """
    some_variants(names.split(","))
    calibration = ["--data", data, "--calib-batches", "2", "--batch-size", "4", "--workers", "0"]
    code = parser.run("yolov5", ["export", weight, "--variants", folder, *calibration, *SMALL])
    listed = json.loads(Path(folder, "variants.json").read_text())
    words = {entry["name"]: (entry["quantize"], entry["export"]) for entry in listed["variants"]}
    same = {}
    for name in alone.split(","):
        quantize, export = words[name]
        parser.run("yolov5", [*quantize, "--ptq", "ptq.pt", "--summary", f"{name}.json", "--device", "cpu"])
        parser.run("yolov5", [*export, "--save", f"{name}.onnx", "--device", "cpu"])
        pairs = list(zip(scales(f"{name}.onnx"), scales(str(Path(folder, f"{name}.onnx")))))
        same[name] = [all(np.array_equal(one, other) for one, other in pairs), len(pairs)]
    return {"code": code, "listed": listed, "same": same}


def of_quantized(weight: str, folder: str, names: str) -> Any:
    """Write variants of a quantized checkpoint: what variants.json lists, and the scales of each that it has no more."""
    some_variants(names.split(","))
    code = parser.run("yolov5", ["export", weight, "--variants", folder, *SMALL])
    listed = [entry["name"] for entry in json.loads(Path(folder, "variants.json").read_text())["variants"]]
    kept = {name: {scale.tobytes() for scale in scales(str(Path(folder, f"{name}.onnx")))} for name in listed}
    return {
        "code": code,
        "listed": listed,
        "new scales": [name for name in listed if not kept[name] <= kept["checkpoint"]],
        "fewer": {name: len(kept["checkpoint"] - kept[name]) for name in listed},
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
