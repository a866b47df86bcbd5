"""Two engines of one network, aligned by the ONNX nodes that TensorRT fused into their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from quantization.inspector.names import common_module, counted
from quantization.inspector.records import Layer, time_ms
from quantization.inspector.topology import EngineGraph, is_reformat
from quantization.union_find import UnionFind


@dataclass(frozen=True)
class Region:
    """The smallest set of layers that computes the same ONNX nodes in both engines.

    Attributes:
        name: upstream module.
        layers: per engine, the layers that compute.
        reformats: per engine, the Reformats of what these layers give.
    """

    name: str
    layers: tuple[list[Layer], list[Layer]]
    reformats: tuple[list[Layer], list[Layer]]

    def ms(self, engine: int) -> float:
        """Time in one of the engines."""
        return time_ms(self.layers[engine] + self.reformats[engine])

    @property
    def extra_ms(self) -> float:
        """Time in the second engine above that in the first."""
        return self.ms(1) - self.ms(0)

    @property
    def matched(self) -> bool:
        """Does each engine have layers of it?"""
        return bool(self.layers[0] and self.layers[1])

    @property
    def fused_differently(self) -> bool:
        """Do the engines cut it into layers at different places?"""
        return self.matched and _partition(self.layers[0]) != _partition(self.layers[1])

    def describe(self, engine: int) -> str:
        """``Conv + SiLU`` or ``Conv | SiLU | 2 Reformats``: layers of one engine and what each computes."""
        parts = [" + ".join(layer.operations) for layer in self.layers[engine]]
        count = len(self.reformats[engine])
        return " | ".join(parts + ([counted(count, "Reformat")] if count else []))


def align(first: EngineGraph, second: EngineGraph) -> list[Region]:
    """Regions of both engines. Layers without ONNX nodes, and what runs on constants alone, are in none."""
    graphs = (first, second)
    computing = [[layer for layer in graph.active() if layer.nodes and not layer.is_reformat] for graph in graphs]
    sets = UnionFind()
    for layer in computing[0] + computing[1]:
        for node in layer.nodes:
            sets.join(node, layer.nodes[0])
    layers: dict[str, tuple[list[Layer], list[Layer]]] = {}
    reformats: dict[str, tuple[list[Layer], list[Layer]]] = {}
    for engine in (1, 0):  # the second engine's order
        for layer in computing[engine]:
            layers.setdefault(sets.find(layer.nodes[0]), ([], []))[engine].append(layer)
    for engine, graph in enumerate(graphs):
        known = {layer.index for layer in computing[engine]}
        for layer in graph.active():
            owner = _neighbour(graph, layer, known) if layer.is_reformat else None
            if owner is not None:
                reformats.setdefault(sets.find(owner.nodes[0]), ([], []))[engine].append(layer)
    return [
        Region(
            common_module([node for layer in first_layers + second_layers for node in layer.nodes]),
            (first_layers, second_layers),
            reformats.get(key, ([], [])),
        )
        for key, (first_layers, second_layers) in layers.items()
    ]


def _neighbour(graph: EngineGraph, layer: Layer, known: set[int]) -> Layer | None:
    """The layer that makes what a Reformat converts; for a network input the one that reads it."""
    near = graph.follow(layer, is_reformat, back=True) + graph.follow(layer, is_reformat)
    return next((each for each in near if each.index in known), None)


def _partition(layers: Sequence[Layer]) -> set[frozenset[str]]:
    return {frozenset(layer.nodes) for layer in layers}
