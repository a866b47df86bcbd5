"""``export --variants`` in a checkout: ``python variant_tasks.py TASK ARGUMENTS``; results are JSON on the last line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

import numpy as np
import onnx
from onnx import numpy_helper

from quantization.cli import parser
from quantization.placement.variants import VARIANTS as TABLE

SMALL = ("--size", "64", "--device", "cpu")


def scales(file: str) -> list[Any]:
    """The scales of all QuantizeLinear, in the order of the graph."""
    graph = onnx.load(file).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return [values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]


def some_variants(names: str) -> None:
    """Leave these in the table, for the time that others take."""
    from quantization.cli import variants

    variants.VARIANTS = tuple(variant for variant in TABLE if variant.name in names.split(","))


def of_float(weight: str, data: str, folder: str, alone: str) -> Any:
    """Write variants of a float checkpoint, make one of them alone as variants.json says, and compare.

    Returns:
        Exit code; whether all scales are equal, and how many there are.
    """
    some_variants(f"default,stem-float,{alone}")
    calibration = [
        "--data",
        data,
        "--calib-batches",
        "1",
        "--batch-size",
        "4",
        "--workers",
        "0",
        "--calib-method",
        "mse",
    ]
    code = parser.run("yolov5", ["export", weight, "--variants", folder, *calibration, *SMALL])
    listed = json.loads(Path(folder, "variants.json").read_text())["variants"]
    words = {entry["name"]: (entry["quantize"], entry["export"]) for entry in listed}
    quantize, export = words[alone]
    parser.run("yolov5", [*quantize, "--ptq", "ptq.pt", "--summary", "alone.json", "--device", "cpu"])
    parser.run("yolov5", [*export, "--save", "alone.onnx", "--device", "cpu"])
    pairs = list(zip(scales("alone.onnx"), scales(str(Path(folder, f"{alone}.onnx")))))
    return {"code": code, "same": all(np.array_equal(one, other) for one, other in pairs), "scales": len(pairs)}


def of_quantized(weight: str, folder: str) -> Any:
    """Write variants of a quantized checkpoint: what variants.json lists, and the scales of each that it has no more."""
    some_variants("default,head-float,stem-int8")
    code = parser.run("yolov5", ["export", weight, "--variants", folder, *SMALL])
    listed = json.loads(Path(folder, "variants.json").read_text())["variants"]
    kept = {entry["name"]: {s.tobytes() for s in scales(str(Path(folder, entry["file"])))} for entry in listed}
    return {
        "code": code,
        "listed": {entry["name"]: entry["quantize"] for entry in listed},
        "new scales": [name for name, found in kept.items() if not found <= kept["checkpoint"]],
    }


def both(weight: str, data: str) -> Any:
    """The results of both tasks, the second with the checkpoint of the first."""
    return {"float": of_float(weight, data, "variants", "sums-float"), "quantized": of_quantized("ptq.pt", "fewer")}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
