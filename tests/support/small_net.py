"""A network of one convolution, as TensorRT's parser would be given it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def small_net(file: Path, batch: int | str, quantized: bool = False, half: bool = False, side: int = 8) -> Path:
    """Write an ONNX with the input images (batch, 3, side, side).

    Many parameters: each is one thing that a line of trtexec depends on.

    Args:
        file: where to.
        batch: a number, or a name: it is open.
        quantized: with a Q/DQ pair before the convolution.
        half: the convolution runs in FP16, between casts.
        side: height and width.
    """
    kind = np.float16 if half else np.float32
    weights = {"weight": np.ones((4, 3, 1, 1), kind)}
    nodes, tensor = [], "images"
    if half:
        nodes.append(helper.make_node("Cast", [tensor], ["cast"], to=TensorProto.FLOAT16))
        tensor = "cast"
    if quantized:
        weights.update(scale=np.array(0.1, kind), zero=np.array(0, np.int8))
        for name, operator in (("q", "QuantizeLinear"), ("dq", "DequantizeLinear")):
            nodes.append(helper.make_node(operator, [tensor, "scale", "zero"], [name]))
            tensor = name
    nodes.append(helper.make_node("Conv", [tensor, "weight"], ["conv"]))
    last = helper.make_node("Cast", ["conv"], ["outputs"], to=TensorProto.FLOAT) if half else None
    nodes.append(last or helper.make_node("Relu", ["conv"], ["outputs"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [batch, 4, side, side])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19 if half else 17)], ir_version=9)
    onnx.save(model, str(file))
    return file
