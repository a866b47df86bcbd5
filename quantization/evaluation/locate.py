"""Where an engine starts to differ from its ONNX: builds with a few tensors as further outputs narrow it down. No torch.

A tensor that is right clears all that it is made of; the first wrong one leaves only what it is made of. Each build shows
``AT_ONCE`` tensors, spread over those that are left, so that ``BUILDS`` builds tell a thousand tensors apart.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Sequence

import onnx
from onnx import TensorProto

from quantization.onnx_graph.graph import OnnxGraph, without_weights
from quantization.preflight.operators import QDQ

BUILDS = 5  # at most
AT_ONCE = 3  # tensors a build; each may keep TensorRT from fusing what it lies between
FAR = 0.3  # relative error from which a tensor is wrong; a choice: no engine with a known fault was at hand
KINDS = (TensorProto.FLOAT, TensorProto.FLOAT16)
MADE_BY_NO_LAYER = {*QDQ, "Constant", "Cast", "Identity"}
FUSED = {"Sigmoid", "Tanh", "Mul", "Relu", "LeakyRelu", "Clip", "HardSigmoid", "HardSwish"}  # with what is before them
VANISHED = (
    "with {} as further outputs the boxes are right: these keep TensorRT from a fusion that is wrong, so the place cannot "
    "be narrowed down more"
)


class TensorProbe(NamedTuple):
    """What one build showed.

    Attributes:
        errors: of each tensor, relative to its size.
        is_wrong: whether the boxes of this engine are wrong too.
    """

    errors: Mapping[str, float]
    is_wrong: bool


def find_start(model: onnx.ModelProto, measure: Callable[[Sequence[str]], TensorProbe]) -> str:
    """Where the difference starts, in words.

    Args:
        model: what the engine was built from.
        measure: builds it with these tensors as further outputs, and compares them.
    """
    graph = OnnxGraph(model)
    left = visible_tensors(model)
    made_of = _ancestors(graph, left)
    right: list[str] = []
    wrong = ""
    for _ in range(BUILDS):
        shown = _spread(left)
        if not shown:
            break
        probe = measure(shown)
        if not probe.is_wrong:
            known = _range(graph, made_of, right, wrong)
            return f"{known}; {VANISHED.format(', '.join(_node(graph, tensor) for tensor in shown))}"
        for tensor in shown:
            if probe.errors[tensor] <= FAR:
                right.append(tensor)
                left = [other for other in left if other not in made_of[tensor]]
        bad = [tensor for tensor in shown if tensor in left]
        if bad:
            wrong = bad[0]
            left = [other for other in left if other in made_of[wrong] and other != wrong]
    return _range(graph, made_of, right, wrong)


def visible_tensors(model: onnx.ModelProto) -> list[str]:
    """Tensors that can become outputs and that most kernels end with, in the graph's order: of floats, one row an image."""
    graph = OnnxGraph(model)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    known = {value.name: value.type.tensor_type for value in _typed(model).graph.value_info}
    found = []
    for node in graph.nodes:
        name = node.output[0]
        readers = [reader.op_type for reader, _ in graph.consumers.get(name, ())]
        kind = known.get(name)
        if node.op_type in MADE_BY_NO_LAYER or name in graph.outputs or set(readers) <= FUSED or kind is None:
            continue
        if kind.elem_type in KINDS and len(kind.shape.dim) >= 3 and kind.shape.dim[0] == batch:
            found.append(name)
    return found


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy that puts out these tensors too, behind its own outputs."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {value.name: value for value in _typed(model).graph.value_info}
    result.graph.output.extend(known[tensor] for tensor in tensors)
    return result


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the types and shapes of its tensors."""
    return onnx.shape_inference.infer_shapes(without_weights(model))


def _spread(tensors: Sequence[str]) -> list[str]:
    """``AT_ONCE`` of them, which leave parts of the same length between them."""
    count = min(AT_ONCE, len(tensors))
    return [tensors[(place + 1) * len(tensors) // (count + 1)] for place in range(count)]


def _ancestors(graph: OnnxGraph, tensors: Sequence[str]) -> dict[str, set[str]]:
    """For each tensor those of ``tensors`` that it is made of, itself included."""
    wanted = set(tensors)
    found: dict[str, set[str]] = {}
    for node in graph.nodes:
        past: set[str] = set().union(*(found.get(name, ()) for name in node.input))
        for name in node.output:
            found[name] = past | ({name} & wanted)
    return found


def _range(graph: OnnxGraph, made_of: Mapping[str, set[str]], right: Sequence[str], wrong: str) -> str:
    """``between A and B``: the last right or cleared tensor that the first wrong one is made of, and that one."""
    cleared: set[str] = set().union(*(made_of[tensor] for tensor in right))
    before = [tensor for tensor in made_of if tensor in cleared and (not wrong or tensor in made_of[wrong])]
    first = f"node {_node(graph, before[-1])}" if before else "the input"
    last = f"node {_node(graph, wrong)}" if wrong else "the outputs"
    return f"the difference starts between {first} and {last}"


def _node(graph: OnnxGraph, tensor: str) -> str:
    node = graph.producer[tensor]
    return node.name or f"{node.op_type} of {tensor}"
