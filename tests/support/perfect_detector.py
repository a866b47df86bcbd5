"""An ONNX that reads the boxes back from the pixels: objects are rectangles, and their colours tell the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SLOTS = 4  # objects of one class that an image may have


def colour(label: int, slot: int) -> tuple[int, int, int]:
    """R, G, B of an object; every class and slot has its own, none is the border's grey or the background's black."""
    return 60 + 40 * label, 40 + 50 * slot, 250


def perfect_detector(file: Path, size: tuple[int, int], classes: int, merged: bool = False) -> Path:
    """Write the ONNX: images (B, 3, H, W) to boxes (B, classes * SLOTS, 5 + classes).

    Args:
        file: where to.
        size: H and W.
        classes: that objects are drawn in.
        merged: give all of them as one class, as a model of ``--single-cls`` does.
    """
    count = classes * SLOTS
    colours = np.array([colour(label, slot) for label in range(classes) for slot in range(SLOTS)], np.float32)
    one_hot = np.ones((count, 1)) if merged else np.repeat(np.eye(classes), SLOTS, axis=0)
    ramps = [np.arange(side, dtype=np.float32) for side in size]
    constants = {
        "colours": colours.reshape(1, count, 3, 1, 1) / 255,
        "near": np.array(0.4 / 255, np.float32),
        "half": np.array(0.5, np.float32),
        "scores": one_hot[None].astype(np.float32),
        "axis1": np.array([1]),
    }
    for name, ramp in zip("yx", ramps):
        constants[f"{name}_up"], constants[f"{name}_down"] = ramp + 1, len(ramp) - ramp
        constants[f"{name}_side"] = np.array(len(ramp), np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["images", "axis1"], ["image"]),  # (B, 1, 3, H, W)
        helper.make_node("Sub", ["image", "colours"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("ReduceMax", ["distance"], ["farthest"], axes=[2], keepdims=0),  # (B, K, H, W)
        helper.make_node("Less", ["farthest", "near"], ["same"]),
        helper.make_node("Cast", ["same"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["mask"], ["there"], axes=[2, 3], keepdims=0),  # (B, K)
        helper.make_node("Unsqueeze", ["there", "axis2"], ["objectness"]),
        helper.make_node("Mul", ["objectness", "scores"], ["classes"]),
    ]
    constants["axis2"] = np.array([2])
    for name, axis in (("y", 3), ("x", 2)):
        nodes += [
            helper.make_node("ReduceMax", ["mask"], [f"{name}_mask"], axes=[axis], keepdims=0),  # (B, K, side)
            helper.make_node("Mul", [f"{name}_mask", f"{name}_up"], [f"{name}_ends"]),
            helper.make_node("ReduceMax", [f"{name}_ends"], [f"{name}_high"], axes=[2], keepdims=1),
            helper.make_node("Mul", [f"{name}_mask", f"{name}_down"], [f"{name}_starts"]),
            helper.make_node("ReduceMax", [f"{name}_starts"], [f"{name}_back"], axes=[2], keepdims=1),
            helper.make_node("Sub", [f"{name}_side", f"{name}_back"], [f"{name}_low"]),
            helper.make_node("Sub", [f"{name}_high", f"{name}_low"], [f"{name}_length"]),
            helper.make_node("Add", [f"{name}_high", f"{name}_low"], [f"{name}_sum"]),
            helper.make_node("Mul", [f"{name}_sum", "half"], [f"{name}_centre"]),
        ]
    columns = ["x_centre", "y_centre", "x_length", "y_length", "objectness", "classes"]
    nodes.append(helper.make_node("Concat", columns, ["outputs"], axis=2))
    graph = helper.make_graph(
        nodes,
        "perfect",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["batch", count, 5 + one_hot.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file
