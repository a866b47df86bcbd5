"""The inputs and outputs of an export, without nodes."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from quantization.handover.facts import SUPPRESSED


def net(batch: int | str, suppressed: bool = False) -> onnx.ModelProto:
    """A network's inputs and outputs, without nodes."""
    shapes: dict[str, tuple[int, list[int]]] = {"outputs": (TensorProto.FLOAT, [2520, 8])}
    if suppressed:
        shapes = {
            name: (TensorProto.INT32 if name in ("num_dets", "det_classes") else TensorProto.FLOAT, sides)
            for name, sides in zip(SUPPRESSED, ([1], [100, 4], [100], [100]))
        }
    outputs = [helper.make_tensor_value_info(name, kind, [batch, *sides]) for name, (kind, sides) in shapes.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 192, 320])
    return helper.make_model(helper.make_graph([], "net", [images], outputs))
