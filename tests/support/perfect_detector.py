"""An ONNX that reads the boxes back from the pixels: objects are rectangles, and their colours tell the class.

``other_form`` makes it give its boxes as other detectors do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantization.export.end2end import Suppression, append_suppression

SLOTS = 7  # objects of one class that an image may have; those of three classes are as many as cells of three levels


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


def with_plugin(file: Path, names: Sequence[str]) -> Path:
    """Append EfficientNMS_TRT to a perfect detector's ONNX, which ONNX Runtime then refuses; the file."""
    model = onnx.load(str(file))
    append_suppression(model, Suppression("trt", 100, 0.65, 0.35, tuple(names)))
    onnx.save(model, str(file))
    return file


def other_form(file: Path, kind: str, classes: int) -> Path:
    """Rewrite a perfect detector's ONNX so that it gives its boxes in another of the formats of ``OUTPUT_FORMATS``.

    Args:
        file: of ``perfect_detector``, not merged.
        kind: which format.
        classes: that it knows.

    Returns:
        The file.
    """
    model = onnx.load(str(file))
    (rows,) = model.graph.output
    count = classes * SLOTS
    labels = np.repeat(np.arange(classes), SLOTS).astype(np.float32).reshape(1, count, 1)
    make = helper.make_node
    nodes = [
        make("Concat", ["x_low", "y_low", "x_high", "y_high"], ["corners"], axis=2),
        make("TopK", ["there", "most"], ["det_scores", "best"], axis=1),
        make("Unsqueeze", ["best", "axis2"], ["best_row"]),
        make("Mul", ["objectness", "one"], ["scores_row"]),
        make("Mul", ["objectness", "labels"], ["labels_row"]),
        make("Concat", ["corners", "scores_row", "labels_row"], ["found"], axis=2),  # (B, count, 6)
        make("Expand", ["best_row", "wide"], ["index"]),
        make("GatherElements", ["found", "index"], ["sorted"], axis=1),
    ]
    constants = {"most": [count], "one": np.float32(1), "labels": labels, "wide": [1, 1, 6]}
    outputs: list[tuple[str, int, list[str | int]]]
    if kind == "columns":
        nodes = [
            make("Concat", ["x_centre", "y_centre", "x_length", "y_length", "classes"], ["narrow"], axis=2),
            make("Transpose", ["narrow"], ["columns"], perm=[0, 2, 1]),
        ]
        outputs = [("columns", TensorProto.FLOAT, ["batch", 4 + classes, count])]
    elif kind == "final":
        nodes.append(make("Pad", ["sorted", "fill"], ["final"]))
        constants["fill"] = [0, 0, 0, 0, 300 - count, 0]
        outputs = [("final", TensorProto.FLOAT, ["batch", 300, 6])]
    else:
        nodes += [
            make("ReduceSum", ["there", "axis1"], ["number"], keepdims=1),
            make("Cast", ["number"], ["num_dets"], to=TensorProto.INT32),
            make("Split", ["sorted", "parts"], ["det_boxes", "unused", "wide_classes"], axis=2),
            make("Squeeze", ["wide_classes", "axis2"], ["float_classes"]),
            make("Cast", ["float_classes"], ["det_classes"], to=TensorProto.INT32),
        ]
        constants["parts"] = [4, 1, 1]
        outputs = [
            ("num_dets", TensorProto.INT32, ["batch", 1]),
            ("det_boxes", TensorProto.FLOAT, ["batch", count, 4]),
            ("det_scores", TensorProto.FLOAT, ["batch", count]),
            ("det_classes", TensorProto.INT32, ["batch", count]),
        ]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    model.graph.output.remove(rows)
    model.graph.output.extend(helper.make_tensor_value_info(*output) for output in outputs)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file
