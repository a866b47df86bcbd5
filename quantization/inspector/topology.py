"""Who reads what in an engine, where several layers may write into one tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Mapping

from quantization.inspector.names import block_number, detect_block, same_block
from quantization.inspector.records import EngineInfo, Layer, Tensor


@dataclass(frozen=True)
class Edge:
    """A tensor from one layer to another.

    Attributes:
        source: index of the writer; None for an input of the network.
        target: index of the reader; None for an output of the network.
        tensor: as it is written, or as it is read if the network's input.
        part: the writer fills a part only: an eliminated Concat.
    """

    source: int | None
    target: int | None
    tensor: Tensor
    part: bool = False


class EngineGraph:
    """Edges of an engine, with indices of readers and writers.

    A Concat without a layer of its own shows as several layers that each write a part of one tensor. Scratch tensors
    are written whole several times; a reader sees the last write before it. An engine with loops has cycles.

    Attributes:
        edges: in the order of the readers.
        outgoing: edges by their source.
        incoming: edges by their target.
        constant: indices of constants, and of Reformats and no-ops of nothing but constants.
        concats: names of Concats, by the ONNX nodes that read them, as another engine of the network gives them.
    """

    def __init__(self, engine: EngineInfo, concats: Mapping[str, str] | None = None) -> None:
        self.engine = engine
        self.layers = engine.layers
        self.concats = concats or {}
        self.edges = _edges(engine)
        self.outgoing: dict[int | None, list[Edge]] = defaultdict(list)
        self.incoming: dict[int | None, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            self.outgoing[edge.source].append(edge)
            self.incoming[edge.target].append(edge)
        self.constant = self._constant_layers()

    def readers(self, index: int) -> list[Layer]:
        """Layers that read what layer ``index`` writes."""
        targets = sorted({edge.target for edge in self.outgoing[index] if edge.target is not None})
        return [self.layers[target] for target in targets]

    def writers(self, index: int) -> list[Layer]:
        """Layers that write what layer ``index`` reads."""
        sources = sorted({edge.source for edge in self.incoming[index] if edge.source is not None})
        return [self.layers[source] for source in sources]

    def follow(self, start: Layer, through: Callable[[Layer], bool], back: bool = False) -> list[Layer]:
        """The nearest layers after (or before) ``start`` that are not of the sort to look through."""
        step = self.writers if back else self.readers
        seen: set[int] = {start.index}
        found: list[Layer] = []
        waiting = step(start.index)
        while waiting:
            layer = waiting.pop(0)
            if layer.index in seen:
                continue
            seen.add(layer.index)
            if through(layer):
                waiting += step(layer.index)
            else:
                found.append(layer)
        return found

    @cached_property
    def splits(self) -> list[tuple[Layer, Layer]]:
        """Int8 convolutions that emit float into a separate activation layer of the same block, with that layer."""
        return [
            (layer, after)
            for layer in self.layers
            if layer.kind == "conv" and layer.precision == "Int8" and layer.emits_float
            for after in self.follow(layer, is_reformat)
            if after.kind == "pointwise" and same_block(layer.nodes, after.nodes)
        ]

    @cached_property
    def detects(self) -> list[Layer]:
        """The last convolutions of the detect layer, by their names, with nothing behind ``model.N``."""
        last = max((block_number([node]) for layer in self.layers for node in layer.nodes), default=-1)
        return [layer for layer in self.layers if layer.kind == "conv" and detect_block(layer.nodes) == last >= 0]

    @cached_property
    def largest_detect(self) -> Layer | None:
        """The detect convolution with the largest input; None if there is none."""
        return max(self.detects, key=lambda layer: _elements(layer.inputs[0]) if layer.inputs else 0, default=None)

    def active(self) -> list[Layer]:
        """All layers but those of constants alone."""
        return [layer for layer in self.layers if layer.index not in self.constant]

    def _constant_layers(self) -> set[int]:
        constant: set[int] = set()
        for layer in self.layers:
            sources = [edge.source for edge in self.incoming[layer.index]]
            copies = layer.passes_on and sources and all(source in constant for source in sources)
            if layer.kind == "constant" or copies:
                constant.add(layer.index)
        return constant


def is_reformat(layer: Layer) -> bool:
    """``layer.is_reformat``, to look through with ``EngineGraph.follow``."""
    return layer.is_reformat


def passes_on(layer: Layer) -> bool:
    """``layer.passes_on``, to look through with ``EngineGraph.follow``."""
    return layer.passes_on


def keeps_scale(layer: Layer) -> bool:
    """``layer.keeps_scale``, to look through with ``EngineGraph.follow``."""
    return layer.keeps_scale


def _elements(tensor: Tensor) -> int:
    return math.prod(abs(size) for size in tensor.shape)


def _edges(engine: EngineInfo) -> list[Edge]:
    writes: dict[str, list[Edge]] = defaultdict(list)
    for layer in engine.layers:
        for tensor in layer.outputs:
            writes[tensor.name].append(Edge(layer.index, None, tensor))
    edges: list[Edge] = []
    bindings = set(engine.bindings)
    for layer in engine.layers:
        for name, tensor in {tensor.name: tensor for tensor in layer.inputs}.items():
            found = _visible(writes.get(name, []), layer.index, tensor)
            edges += [Edge(write.source, layer.index, write.tensor, part=len(found) > 1) for write in found]
            if not found and name in bindings:  # what is no binding either is a control channel of TensorRT's
                edges.append(Edge(None, layer.index, tensor))
    for name in engine.bindings:
        found = writes.get(name, [])
        edges += [Edge(write.source, None, write.tensor, part=len(found) > 1) for write in found]
    return edges


def _visible(writes: list[Edge], reader: int, tensor: Tensor) -> list[Edge]:
    """The writes that a reader sees: back to the last one that fills the whole tensor.

    In a loop a tensor may be read before it is written: then all writes count.
    """
    before = [write for write in writes if write.source is not None and write.source < reader] or writes
    seen: list[Edge] = []
    for write in reversed(before):
        seen.insert(0, write)
        if write.tensor.shape == tensor.shape:
            break
    return seen
