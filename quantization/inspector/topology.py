"""Who reads what in an engine, where several layers may write into one tensor."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Callable

from quantization.inspector.classify import is_reformat, kind
from quantization.inspector.layers import Engine, Layer, Tensor


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
        concats: names of Concats, by the ONNX nodes that read them, as another engine of the network gives them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.layers = engine.layers
        self.edges: list[Edge] = []
        self.concats: dict[str, str] = {}
        writes: dict[str, list[Edge]] = defaultdict(list)
        for layer in self.layers:
            for tensor in layer.outputs:
                writes[tensor.name].append(Edge(layer.index, None, tensor))
        bindings = set(engine.bindings)
        for layer in self.layers:
            for name, tensor in {tensor.name: tensor for tensor in layer.inputs}.items():
                found = _visible(writes.get(name, []), layer.index, tensor)
                self.edges += [Edge(write.source, layer.index, write.tensor, part=len(found) > 1) for write in found]
                if not found and name in bindings:  # what is no binding either is a control channel of TensorRT's
                    self.edges.append(Edge(None, layer.index, tensor))
        for name in engine.bindings:
            found = writes.get(name, [])
            self.edges += [Edge(write.source, None, write.tensor, part=len(found) > 1) for write in found]
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

    def _constant_layers(self) -> set[int]:
        """Constants, and Reformats and no-ops of nothing but constants, in the order of execution."""
        constant: set[int] = set()
        for layer in self.layers:
            sources = [edge.source for edge in self.incoming[layer.index]]
            copies = is_reformat(layer) or kind(layer) == "no-op"
            if kind(layer) == "constant" or (copies and sources and all(source in constant for source in sources)):
                constant.add(layer.index)
        return constant


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
