"""The decode of distributions as one product: the same boxes as the exported nodes give, and as numpy gives."""

from __future__ import annotations

from typing import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantization.onnx_graph.box_formula import respell_box_decode
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import OnnxGraph
from support.qdq_net import Net

SIDES = (4, 2)  # of the two maps, cells
STRIDES = (8, 16)
BINS = 8
CELLS = sum(side**2 for side in SIDES)
INPUT = (2, 4 * BINS, CELLS)
Tail = Callable[[Net, str], str]


def grid() -> np.ndarray:
    """(2, N): centres of the cells, in cells."""
    columns = [np.tile(np.arange(side) + 0.5, side) for side in SIDES]
    rows = [np.repeat(np.arange(side) + 0.5, side) for side in SIDES]
    return np.stack([np.concatenate(columns), np.concatenate(rows)])


def strides() -> np.ndarray:
    return np.concatenate([np.full(side**2, stride) for side, stride in zip(SIDES, STRIDES)])


def floats(net: Net, values: object) -> str:
    return net.constant(np.asarray(values, np.float32))


def numbers(net: Net, *values: int) -> str:
    return net.constant(np.array(values, np.int64))


def corners(net: Net, mean: str) -> tuple[str, str]:
    """Both corners, by Slices whose bounds are computed from the shape, as ultralytics' exports have it."""
    count = net.op("Gather", [net.op("Shape", [mean]), numbers(net, 1)], axis=0)
    half = net.op("Div", [net.op("Add", [count, numbers(net, 1)]), numbers(net, 2)])
    first = net.op("Slice", [mean, numbers(net, 0), half, numbers(net, 1)])
    second = net.op("Slice", [mean, half, net.op("Mul", [half, numbers(net, 2)]), numbers(net, 1)])
    return net.op("Sub", [floats(net, grid()[None]), first]), net.op("Add", [floats(net, grid()[None]), second])


def centres(net: Net, mean: str) -> str:
    """YOLOv8's boxes: centre, width and height, pixels."""
    first, second = corners(net, mean)
    centre = net.op("Div", [net.op("Add", [first, second]), floats(net, 2)])
    joined = net.op("Concat", [centre, net.op("Sub", [second, first])], axis=1)
    return net.op("Mul", [joined, floats(net, strides()[None])])


def corners_alone(net: Net, mean: str) -> str:
    """The boxes of heads without suppression: both corners, pixels."""
    return net.op("Mul", [net.op("Concat", list(corners(net, mean)), axis=1), floats(net, strides()[None])])


def squared(net: Net, mean: str) -> str:
    """Not affine."""
    return net.op("Mul", [mean, mean])


def uneven(net: Net, mean: str) -> str:
    """Affine, but each side of each cell is scaled by itself."""
    return net.op("Mul", [mean, floats(net, 1 + np.arange(4 * CELLS).reshape(1, 4, CELLS) % 7)])


def two_ends(net: Net, mean: str) -> str:
    """Both corners are needed, as by a rotation."""
    first, second = corners(net, mean)
    return net.op("Concat", [net.op("Exp", [first]), net.op("Exp", [second])], axis=1)


def two_whole_ends(net: Net, mean: str) -> str:
    """The same, each of all four sides."""
    ends = [net.op("Exp", [net.op(name, [mean, floats(net, 0.5)])]) for name in ("Add", "Mul")]
    return net.op("Concat", ends, axis=1)


def swapped(net: Net, mean: str) -> str:
    """Affine, but the boxes are those of the other image."""
    return net.op("Gather", [centres(net, mean), numbers(net, 1, 0)], axis=0)


def shifted(net: Net, mean: str) -> str:
    """Affine, but each image has an offset of its own."""
    return net.op("Add", [centres(net, mean), floats(net, [[[0]], [[100]]])])


def head(tail: Tail, perm: tuple[int, ...] = (0, 2, 1, 3), axis: int = 1, cells: int = CELLS) -> onnx.ModelProto:
    """Maps to boxes; scores beside them."""
    net = Net()
    spread = net.op("Reshape", ["images", numbers(net, 0, 4, BINS, cells)])
    share = net.op("Softmax", [net.op("Transpose", [spread], perm=list(perm))], axis=axis)
    weight = np.arange(BINS, dtype=np.float32).reshape(1, -1, 1, 1)
    net.initializers.append(numpy_helper.from_array(weight, "model.9.dfl.conv.weight"))
    mean = net.op("Conv", [share, "model.9.dfl.conv.weight"], "model/9/dfl/conv")
    boxes = tail(net, net.op("Reshape", [mean, numbers(net, 0, 4, cells)]))
    scores = net.op("Sigmoid", [net.op("Slice", ["images", numbers(net, 0), numbers(net, 3), numbers(net, 1)])])
    net.outputs.append((net.op("Concat", [boxes, scores], axis=1), 3))
    model = net.model(INPUT)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.name}_{number}"
    onnx.checker.check_model(model)
    return model


def maps() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, INPUT).astype(np.float32)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"images": maps()})[0]
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def distances() -> np.ndarray:
    """(B, 4, N), by numpy."""
    values = np.exp(maps().astype(np.float64).reshape(INPUT[0], 4, BINS, CELLS))
    share = values / values.sum(2, keepdims=True)
    return np.asarray((share * np.arange(BINS)[:, None]).sum(2))


def respelled(tail: Tail) -> onnx.ModelProto:
    """The head's model, written anew; its outputs are the same."""
    model = head(tail)
    before = run(model)
    assert respell_box_decode(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model), before, rtol=1e-4, atol=1e-4)
    return model


def test_centres_are_one_product() -> None:
    model = respelled(centres)
    assert operators(model) == ["Reshape", "Softmax", "Reshape", "MatMul", "Mul", "Add", "Slice", "Sigmoid", "Concat"]
    left, top, right, bottom = distances().transpose(1, 0, 2)
    wanted = (
        np.stack([grid()[0] + (right - left) / 2, grid()[1] + (bottom - top) / 2, left + right, top + bottom], 1)
        * strides()
    )
    np.testing.assert_allclose(run(model)[:, :4], wanted, rtol=1e-4, atol=1e-4)
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read  # nothing is left over


def test_corners_are_one_product() -> None:
    model = respelled(corners_alone)
    assert operators(model).count("MatMul") == 1 and "Conv" not in operators(model)
    left, top, right, bottom = distances().transpose(1, 0, 2)
    wanted = np.stack([grid()[0] - left, grid()[1] - top, grid()[0] + right, grid()[1] + bottom], 1) * strides()
    np.testing.assert_allclose(run(model)[:, :4], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tail", [squared, uneven, two_ends, two_whole_ends, swapped, shifted])
def test_what_is_not_affine_follows_the_mean(tail: Tail) -> None:
    found = operators(respelled(tail))
    assert found[:4] == ["Reshape", "Softmax", "Reshape", "MatMul"] and "Transpose" not in found
    assert ("Exp" if tail in (two_ends, two_whole_ends) else "Mul") in found[6:]


def test_the_product_is_known_as_a_mean() -> None:
    """So that what is before it counts as the head, and it is no layer that was left in float."""
    graph = OnnxGraph(respelled(centres))
    assert is_expectation(next(node for node in graph.nodes if node.op_type == "MatMul"), graph)


def test_other_graphs_stay() -> None:
    over_sides, scrambled = head(centres, axis=2), head(centres, perm=(0, 2, 3, 1))
    open_cells = head(lambda net, mean: mean, cells=-1)
    open_cells.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "cells"
    shown = [head(centres), head(centres)]  # with an output in between
    for model, operator in zip(shown, ("Reshape", "Transpose")):
        node = next(node for node in model.graph.node if node.op_type == operator)
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [None] * 4))
    for model in (over_sides, scrambled, open_cells, *shown):
        before = model.SerializeToString(deterministic=True)
        assert not respell_box_decode(model)
        assert model.SerializeToString(deterministic=True) == before
