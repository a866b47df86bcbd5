"""Tensors in portions: sizes against ONNX Runtime's, parts of a graph, and equal values however many portions there are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantization.onnx_quantize.activations import TensorRunner
from quantization.onnx_quantize.portions import part_for, portions, tensor_bytes
from support.float_nets import detector, noise


def made(model: onnx.ModelProto) -> list[str]:
    return [name for node in model.graph.node for name in node.output]


@pytest.mark.parametrize("batch", [4, "N"])
def test_sizes_are_those_that_onnx_runtime_gives(batch: object) -> None:
    model = detector(batch)
    images = np.repeat(noise()[:2], 2, 0)
    names = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    values = [value for _, _, value in TensorRunner(model, "images", 4, names)(images)]
    assert tensor_bytes(model, {"images": images.shape}, names) == {a: b.nbytes for a, b in zip(names, values)}


def test_portions_by_hand() -> None:
    sizes = {"a": 3, "b": 4, "c": 9, "d": 0, "e": 1}
    assert portions("abcde", sizes, 7) == [["a", "b"], ["c"], ["d", "e"]]
    assert portions("abcde", sizes, 100) == [list("abcde")]
    assert portions("", sizes, 7) == []


def test_a_part_has_what_its_tensors_need_and_no_more() -> None:
    model = detector()
    names = made(model)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    part = part_for(model, [first.output[0]])
    assert [node.op_type for node in part.graph.node] == ["Conv"]
    assert {tensor.name for tensor in part.graph.initializer} == set(first.input[1:])
    last = model.graph.node[-1].output[0]
    assert set(made(part_for(model, [last]))) <= set(names) and last in made(part_for(model, [last]))


def test_the_body_of_an_if_reads_from_outside() -> None:
    def body(name: str, operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["hidden", "hidden"], [name])], name, [], [output])

    nodes = [
        helper.make_node("Neg", ["images"], ["hidden"]),
        helper.make_node("Abs", ["images"], ["unused"]),
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["flag"], to=TensorProto.BOOL),
        helper.make_node("If", ["flag"], ["y"], then_branch=body("sum", "Add"), else_branch=body("product", "Mul")),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 2, 2]) for name in ("images", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    part = part_for(model, ["y"])
    assert made(part) == ["hidden", "largest", "flag", "y"]
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.ones((1, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(session.run(None, {"images": image})[0], -2 * image)


def test_values_do_not_depend_on_the_portions() -> None:
    """A fixed batch whose last run is padded: every tensor alone, a few at a time, and all at once."""
    model = detector(4)
    made_names = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Add", "Mul")]
    names = ["images", *made_names[::5]]
    found = [list(TensorRunner(model, "images", 4, names, portion)(noise())) for portion in (1, 20_000, 2**29)]
    for first, *others in zip(*found):
        assert all(first[:2] == other[:2] and np.array_equal(first[2], other[2]) for other in others)
    assert [entry[0] for entry in found[0]] == [4] * len(names) + [2] * len(names)
    assert [entry[1] for entry in found[0]] == names * 2
    assert all(len(entry[2]) == entry[0] for entry in found[0])
