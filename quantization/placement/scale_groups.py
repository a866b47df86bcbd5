"""Scale groups: which activation quantizers must be one, so that TensorRT inserts no conversion.

    conv 6 --+                            conv 6 --Q--+
             +-- Concat -- conv 11   =>                +-- Concat --Q-- conv 11    all three Q with one scale:
    conv 8 --+-- conv 9               conv 8 --Q--+                                the Concat runs in INT8, in place

TensorRT moves Q backward and DQ forward over operations that commute with them (rule_families). Tensors joined through such
operations carry one scale or cost a Reformat each, so every quantizer that reads a tensor of such a class is made one.

The classes are found by union-find over the un-quantized graph. Each quantizer's place is marked by a multiplication
with a number of its own: unlike node names, which differ between exporters and versions, a marker is found with
certainty, and no exporter merges two of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Callable, Iterable

import onnx
from torch import Tensor, nn

from quantization.onnx_graph.commuting import NO_VALUES, joined_tensors, refusal
from quantization.onnx_graph.graph import OnnxGraph
from quantization.onnx_graph.module_path import module_path
from quantization.quantizers.backend import (
    OUTPUT_NAME,
    WEIGHT_NAME,
    get_quantizer,
    named_quantizers,
    put_quantizer,
    set_enabled,
    swapped,
)
from quantization.union_find import UnionFind

LOG = logging.getLogger("quantization")
MARKER_BASE = 4_194_304  # 2**22: whole numbers above it are exact in float32 and occur in no network

ExportFunction = Callable[[nn.Module], onnx.ModelProto]


def place_name(path: str, attribute: str) -> str:
    """What a quantizer's place is called: its module's path, with ``:1`` for a sum's second operand, ``:out`` for an output."""
    return path + {"_input1_quantizer": ":1", OUTPUT_NAME: ":out"}.get(attribute, "")


@dataclass(frozen=True)
class ScaleGroup:
    """Quantizers of activations that share one scale.

    Attributes:
        members: (module path, quantizer attribute), in the order of the model.
    """

    members: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """See ``place_name``."""
        return tuple(place_name(path, name) for path, name in self.members)

    def __str__(self) -> str:
        return f"Rules: {', '.join(self.names[:-1])} match to {self.names[-1]}"


class Marker(nn.Module):
    """Stands in for a quantizer while the un-quantized graph is exported."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        """``x`` times the marker's number."""
        return x * float(MARKER_BASE + self.number)


@dataclass(frozen=True)
class MarkedClass:
    """Tensors that carry one scale, read by at least one quantizer.

    Attributes:
        markers: numbers of the quantizers' markers, ascending.
        tensors: names of the tensors, without those that the markers make.
    """

    markers: tuple[int, ...]
    tensors: tuple[str, ...]


def marker_operand(node: onnx.NodeProto, graph: OnnxGraph) -> tuple[int, str] | None:
    """The number of the marker that ``node`` is, and the tensor that it reads; None if it is no marker."""
    if node.op_type == "Mul":
        for index in (0, 1):
            value = graph.constant(node.input[index])
            if value is not None and value.size == 1 and float(value.reshape(())) >= MARKER_BASE:
                return int(value.reshape(())) - MARKER_BASE, node.input[1 - index]
    return None


def find_marked_classes(graph: OnnxGraph) -> list[MarkedClass]:
    """The classes of tensors that markers read, in the order of their first marker.

    Args:
        graph: the un-quantized graph with markers.
    """
    classes = UnionFind()
    markers: dict[int, str] = {}
    made_by_markers: set[str] = set()
    for node in graph.nodes:
        found = marker_operand(node, graph)
        if found is not None:
            number, read = found
            classes.join(read, markers.setdefault(number, read))  # a module called twice has one quantizer
            made_by_markers.add(node.output[0])
            tensors = [read, node.output[0]]  # a marker does not change the tensor: what it makes is what it reads
        else:
            tensors = joined_tensors(node, graph)
        for tensor in tensors[1:]:
            classes.join(tensors[0], tensor)
    numbers: dict[str, list[int]] = {}
    for number in sorted(markers):
        numbers.setdefault(classes.find(markers[number]), []).append(number)
    members: dict[str, list[str]] = {}
    for tensor in list(classes.parent):
        if tensor not in made_by_markers:
            members.setdefault(classes.find(tensor), []).append(tensor)
    return [MarkedClass(tuple(found), tuple(members[root])) for root, found in numbers.items()]


def float_readers(graph: OnnxGraph, tensors: Iterable[str]) -> list[str]:
    """Who else reads the tensors of a class: neither a quantizer nor an operation that commutes with Q/DQ.

    Such a tensor is needed in float too, so its Q cannot be fused into the layer that makes it.

    Args:
        graph: the un-quantized graph with markers.
        tensors: of a ``MarkedClass``.

    Returns:
        A sentence for each tensor that has such readers, with the reason.
    """
    sentences = []
    for tensor in tensors:
        readers = [
            f"{module_path(node)}, {refusal(node)}"
            for node, _ in graph.consumers.get(tensor, [])
            if node.op_type not in NO_VALUES
            and marker_operand(node, graph) is None
            and tensor not in joined_tensors(node, graph)
        ]
        if tensor in graph.outputs:
            readers.append("the network's output")
        if readers:
            source = module_path(graph.producer[tensor]) if tensor in graph.producer else tensor
            sentences.append(f"{source} also feeds {' and '.join(dict.fromkeys(readers))}: one separate quantization")
    return sentences


def find_scale_groups(model: nn.Module, export: ExportFunction) -> list[ScaleGroup]:
    """Find the scale groups of a model whose modules hold quantizers.

    Args:
        model: from ``replace_to_quantization_module``; its quantizers are put back unchanged.
        export: gives the graph of the model as it is, as ``export.export_graph`` does.

    Returns:
        Every class with at least one quantizer, in the order of the model. Quantizers that the inference graph never
        reads (an auxiliary training head's) are in none; they are disabled, with a warning.
    """
    places: list[tuple[str, str]] = []
    quantizers: list[nn.Module] = []

    def mark(path: str, name: str, quantizer: nn.Module) -> nn.Module:
        if name == WEIGHT_NAME:
            return nn.Identity()
        places.append((path, name))
        quantizers.append(quantizer)
        return Marker(len(places) - 1)

    with swapped(model, mark):
        graph = OnnxGraph(export(model))
    classes = find_marked_classes(graph)
    for marked in classes:
        for sentence in float_readers(graph, marked.tensors):
            LOG.info("Rules: %s", sentence)
    for number in sorted(set(range(len(places))) - {number for marked in classes for number in marked.markers}):
        LOG.warning("Rules: %s is left float: the inference graph does not use it", places[number][0])
        set_enabled(quantizers[number], False)
    return [ScaleGroup(tuple(places[number] for number in marked.markers)) for marked in classes]


def share_quantizers(model: nn.Module, groups: list[ScaleGroup]) -> None:
    """Give the members of every group one quantizer, the last member's, and log each group on one line."""
    for group in groups:
        if len(group.members) < 2:
            continue
        path, name = group.members[-1]
        quantizer = get_quantizer(model.get_submodule(path), name)
        for path, name in group.members[:-1]:
            put_quantizer(model.get_submodule(path), quantizer, name)
        LOG.info("%s", group)


def shared_groups(model: nn.Module) -> list[ScaleGroup]:
    """The groups as a model or checkpoint has them: places that hold the same quantizer object."""
    places: dict[int, list[tuple[str, str]]] = {}
    for path, name, _, quantizer in named_quantizers(model):
        if name != WEIGHT_NAME:
            places.setdefault(id(quantizer), []).append((path, name))
    return [ScaleGroup(tuple(members)) for members in places.values()]
