"""Read an ONNX file that may come from anywhere: complete, sorted and free of cycles, or a one-line error.

Everything behind this door may rely on it: each tensor that a node reads is made before, and weights have all their
bytes.
"""

from __future__ import annotations

import math
import re
from collections import deque
from pathlib import Path
from typing import Iterable, Iterator

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx depends on it; no stubs
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from quantization.errors import UserError
from quantization.onnx_graph.graph import without_weights
from quantization.onnx_graph.module_path import module_path

_REMEDY = "export it again"
_GIVE = "give the file that export wrote"
_BITS = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}  # of the types whose names do not say it
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)  # two numbers for each element


def load_onnx(file: str) -> ModelProto:
    """Read an ONNX file with its external weights, and check its structure.

    Returns:
        The model; its nodes are in topological order, those of the file if it was one.

    Raises:
        UserError: the file is missing, no ONNX, or incomplete: weights without their bytes, tensors that nothing makes,
            a cycle, or what ``onnx.checker`` refuses.
    """
    if Path(file).is_dir():
        raise UserError(f"{file} is a folder: name an ONNX file")
    if not Path(file).is_file():
        raise UserError(f"ONNX file {file} does not exist: check the path")
    try:
        model = onnx.load(file)
    except (DecodeError, ValueError) as error:
        remedy = "export the checkpoint, and give the .onnx" if file.endswith((".pt", ".pth")) else _GIVE
        raise UserError(f"{file} is no ONNX: {remedy}") from error
    except (OSError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: its weights cannot be read ({reason}): keep the external data beside it") from error
    if not model.graph.node:
        raise UserError(f"{file} is no ONNX with a graph: {_GIVE}")
    _check_names(model.graph, file)
    check_weights(model, file)
    sort_nodes(model, file)
    _run_checker(model, file)
    return model


def _check_names(graph: GraphProto, file: str) -> None:
    """Refuse names that are no text: protobuf hands them on as bytes."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    names = [graph.name, *(value.name for value in values)]
    for node in graph.node:
        names += (node.name, node.op_type, node.domain, node.doc_string, *node.input, *node.output)
        names += (item.name for item in node.attribute)
        names += (text for item in node.metadata_props for text in (item.key, item.value))
    damaged = next((name for name in names if not isinstance(name, str)), None)
    if damaged is not None:
        raise UserError(f"{file}: the name {damaged!r} in it is no UTF-8 text: {_REMEDY}")


# --- weights ----------------------------------------------------------------------------------------------------------


def check_weights(model: ModelProto, file: str) -> None:
    """Check that every constant tensor has as many bytes as its shape asks for.

    Args:
        model: with its external data read.
        file: for the message.

    Raises:
        UserError: one has more or fewer.
    """
    for tensor in _constants(model.graph):
        if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
            raise UserError(f"{file}: the weight {tensor.name} has no known type ({tensor.data_type}): {_REMEDY}")
        if any(size < 0 for size in tensor.dims):
            raise UserError(f"{file}: the weight {tensor.name} has the shape {list(tensor.dims)}: {_REMEDY}")
        wanted, found, unit = _content(tensor)
        if wanted != found:
            raise UserError(
                f"{file}: the weight {tensor.name} has {found} {unit}, but its shape {list(tensor.dims)} asks for "
                f"{wanted}: the file is damaged or was stripped of its weights; {_REMEDY}"
            )


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.TENSOR:
                yield item.t


def _content(tensor: TensorProto) -> tuple[int, int, str]:
    """What a tensor should hold by its shape, what it holds, and in which unit."""
    count = math.prod(tensor.dims)
    name = TensorProto.DataType.Name(tensor.data_type)
    number = re.search(r"\d+", name)
    bits = int(number.group()) if number else _BITS.get(name, 0)  # INT4 and the like are packed, two in a byte
    if tensor.HasField("raw_data"):
        return -(-count * bits // 8), len(tensor.raw_data), "bytes"
    values = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    if bits < 8 and name != "STRING":
        return -(-count * bits // 8), len(values), "values"
    return count * (2 if tensor.data_type in _COMPLEX else 1), len(values), "values"


# --- order of the nodes -----------------------------------------------------------------------------------------------


def sort_nodes(model: ModelProto, file: str) -> None:
    """Put the nodes in topological order; a file that is in order already stays as it is.

    Args:
        model: changed in place.
        file: for the message.

    Raises:
        UserError: a node or output reads a tensor that nothing makes, or the graph has a cycle.
    """
    graph = model.graph
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    made |= {tensor.values.name for tensor in graph.sparse_initializer}
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needs: list[set[int]] = []
    for node in graph.node:
        needs.append({makers[name] for name in (*node.input, *_captured(node)) if name in makers})
        missing = next((name for name in node.input if name and name not in makers and name not in made), None)
        if missing is not None:
            raise UserError(f"{file}: {_title(node)} reads {missing}, which nothing makes: {_REMEDY}")
    for value in graph.output:
        if value.name not in makers and value.name not in made:
            raise UserError(f"{file}: nothing makes its output {value.name}: {_REMEDY}")
    if any(before >= index for index, before in ((index, max(need, default=-1)) for index, need in enumerate(needs))):
        order = _topological(needs)
        if len(order) < len(needs):
            stuck = _in_a_cycle(needs, set(range(len(needs))) - set(order))
            raise UserError(f"{file}: the graph has a cycle through {_title(graph.node[stuck])}: {_REMEDY}")
        nodes = [graph.node[index] for index in order]
        ordered = GraphProto()
        ordered.node.extend(nodes)
        graph.ClearField("node")
        graph.node.extend(ordered.node)


def _title(node: NodeProto) -> str:
    name = module_path(node)
    return f"node {name}" if name == node.op_type else f"node {name} ({node.op_type})"


def _captured(node: NodeProto) -> Iterator[str]:
    """The tensors that the bodies of an If, Loop or Scan read, those from outside among them."""
    pending = _bodies([node])
    while pending:
        body = pending.pop()
        yield from (value.name for value in body.output)
        yield from (name for inner in body.node for name in inner.input)
        pending += _bodies(body.node)


def _bodies(nodes: Iterable[NodeProto]) -> list[GraphProto]:
    found: list[GraphProto] = []
    for node in nodes:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                found.append(item.g)
            elif item.type == onnx.AttributeProto.GRAPHS:
                found += item.graphs
    return found


def _topological(needs: list[set[int]]) -> list[int]:
    """Indices so that each comes after those that it needs; without those in a cycle and behind one."""
    waiting = [len(need) for need in needs]
    followers: list[list[int]] = [[] for _ in needs]
    for index, need in enumerate(needs):
        for before in need:
            followers[before].append(index)
    ready = deque(index for index, count in enumerate(waiting) if count == 0)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    return order


def _in_a_cycle(needs: list[set[int]], left: set[int]) -> int:
    """One index of a cycle. Each of ``left`` needs another one of them, so going back ends in a cycle."""
    index, seen = min(left), set()
    while index not in seen:
        seen.add(index)
        index = min(needs[index] & left)
    return index


# --- the rest ---------------------------------------------------------------------------------------------------------


def _run_checker(model: ModelProto, file: str) -> None:
    """Let onnx check operators, attributes and types, on a copy without weights."""
    light = without_weights(model)
    for value in (*light.graph.input, *light.graph.output):
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            kind.elem_type = kind.elem_type or TensorProto.FLOAT  # both may be left open, but not for the checker
            kind.shape.SetInParent()
    try:
        onnx.checker.check_model(light)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise UserError(f"{file} is no valid ONNX ({reason}): {_REMEDY}") from error
