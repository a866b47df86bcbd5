"""Tensors of a graph in portions whose bytes stay below a limit, and the part of the graph that each portion needs."""

from __future__ import annotations

import math
from typing import Iterator, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, helper

from quantization.onnx_graph.graph import without_weights
from quantization.preflight.qdq_graph import infer_types


def tensor_bytes(model: ModelProto, shapes: Mapping[str, Sequence[int]], tensors: Sequence[str]) -> dict[str, int]:
    """Bytes of tensors in one run; 0 where the shape cannot be inferred.

    Args:
        model: unchanged.
        shapes: of the inputs of that run.
        tensors: names.
    """
    fixed = without_weights(model)
    del fixed.graph.value_info[:]  # they may be of other shapes
    for entry in fixed.graph.input:
        if entry.name in shapes:
            for dim, side in zip(entry.type.tensor_type.shape.dim, shapes[entry.name]):
                dim.dim_value = side
    for value in fixed.graph.output:
        value.ClearField("type")
    types = infer_types(fixed)
    result = dict.fromkeys(tensors, 0)
    for name in tensors:
        kind = types.get(name)
        if kind is not None and kind.HasField("shape") and kind.elem_type:
            size = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
            result[name] = size * math.prod(dim.dim_value for dim in kind.shape.dim)
    return result


def portions(tensors: Sequence[str], sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Tensors in runs of their order, each of ``limit`` bytes at most, or of one tensor.

    Args:
        tensors: names.
        sizes: bytes of each.
        limit: bytes.
    """
    result: list[list[str]] = []
    room = 0
    for name in tensors:
        if not result or sizes[name] > room:
            result.append([])
            room = limit
        result[-1].append(name)
        room -= sizes[name]
    return result


def part_for(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """The part of a model that some of its tensors need, which are its outputs; ONNX Runtime would compute the rest too.

    Args:
        model: its nodes in topological order.
        tensors: names, of no input.
    """
    needed = set(tensors)
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    part = ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    graph = part.graph
    graph.name = model.graph.name
    graph.node.extend(reversed(nodes))
    graph.input.extend(model.graph.input)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(tensor for tensor in model.graph.sparse_initializer if tensor.values.name in needed)
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    return part


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node reads, the bodies of an If, Loop or Scan included."""
    yield from node.input
    for item in node.attribute:
        for body in (item.g, *item.graphs):
            yield from _body_reads(body)


def _body_reads(body: GraphProto) -> Iterator[str]:
    """Names that a body reads, of tensors of its own or from outside; and its outputs, which may be such."""
    for node in body.node:
        yield from _reads(node)
    yield from (value.name for value in body.output)
