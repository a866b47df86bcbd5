"""Where a difference starts: on random graphs with a fault in one node, against what is downstream of it."""

from __future__ import annotations

import random
import re
from typing import Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from quantization.evaluation.locate import BUILDS, TensorProbe, find_start, visible_tensors, with_outputs

SIDES = [1, 4, 8, 8]


def random_graph(seed: int, count: int) -> onnx.ModelProto:
    """Poolings and sums (Concats would change the shape); each node reads one or two of the last tensors."""
    rng = random.Random(seed)
    tensors, nodes = ["images"], []
    for number in range(count):
        names = rng.sample(tensors[-3:], min(len(tensors), rng.choice([1, 1, 2])))
        kind, extra = ("Add", {}) if len(names) == 2 else ("MaxPool", {"kernel_shape": [1, 1]})
        nodes.append(helper.make_node(kind, names, [f"t{number}"], name=f"n{number}", **extra))
        tensors.append(f"t{number}")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIDES) for name in ("images", tensors[-1])]
    graph = helper.make_graph(nodes, "random", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def downstream(model: onnx.ModelProto, tensor: str) -> set[str]:
    """The tensor and all that is computed from it."""
    found = {tensor}
    for node in model.graph.node:
        if found & set(node.input):
            found |= set(node.output)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_fault_lies_between_the_two_nodes_that_are_named(seed: int) -> None:
    model = random_graph(seed, 120)
    last = model.graph.output[0].name
    rng = random.Random(1000 + seed)
    fault = rng.choice([node for node in model.graph.node if last in downstream(model, node.output[0])])
    wrong, builds = downstream(model, fault.output[0]), []

    def measure(tensors: Sequence[str]) -> TensorProbe:
        builds.append(tensors)
        onnx.checker.check_model(with_outputs(model, tensors))
        return TensorProbe({name: 0.9 if name in wrong else 0.02 for name in tensors}, True)

    text = find_start(model, measure)
    found = re.fullmatch(r"the difference starts between (the input|node n(\d+)) and (the outputs|node n(\d+))", text)
    assert found is not None and len(builds) <= BUILDS and max(map(len, builds)) <= 3
    first = None if found.group(2) is None else f"t{found.group(2)}"
    end = last if found.group(4) is None else f"t{found.group(4)}"
    assert end in wrong and first not in wrong
    assert first is None or end in downstream(model, first)
    # nothing that can be shown lies between the fault and the wrong node and was not cleared
    between = [name for name in visible_tensors(model) if name in wrong and end in downstream(model, name)]
    assert between in ([end], []) or len(builds) == BUILDS
    # and the first one named is the last that is known to be right, whether it was shown itself or not
    before = [name for name in visible_tensors(model) if name not in wrong and end in downstream(model, name)]
    assert first == (before[-1] if before else None) or len(builds) == BUILDS


def test_a_difference_that_vanishes_is_said_to() -> None:
    text = find_start(random_graph(0, 40), lambda tensors: TensorProbe(dict.fromkeys(tensors, 0.01), False))
    assert text.startswith("the difference starts between the input and the outputs; with n")
    assert "as further outputs the boxes are right" in text


def test_tensors_inside_of_a_kernel_are_not_shown() -> None:
    nodes = [
        helper.make_node("MaxPool", ["images"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[1, 1]),
        helper.make_node("Shape", ["d"], ["shape"]),
        helper.make_node("Reshape", ["d", "shape"], ["out"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SIDES) for name in ("images", "out")]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert visible_tensors(model) == ["c", "d"]
