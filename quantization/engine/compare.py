"""Two engines of one network, aligned by the ONNX nodes that TensorRT fused into their layers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

from quantization.engine.classify import is_reformat, kind, precision
from quantization.engine.findings import Finding, by_cost, find_problems, make_finding
from quantization.engine.names import common_module, onnx_nodes, operations
from quantization.engine.records import Layer
from quantization.engine.topology import EngineGraph

Place = Tuple[int, int]  # engine (0 or 1), index of the layer


@dataclass
class Region:
    """The smallest set of layers that computes the same ONNX nodes in both engines.

    Attributes:
        name: upstream module.
        layers: per engine, the layers that compute.
        reformats: per engine, the Reformats of what these layers give.
    """

    name: str
    layers: Tuple[List[Layer], List[Layer]] = field(default_factory=lambda: ([], []))
    reformats: Tuple[List[Layer], List[Layer]] = field(default_factory=lambda: ([], []))

    def ms(self, engine: int) -> float:
        """Time in one of the engines."""
        return sum(layer.time_ms or 0.0 for layer in self.layers[engine] + self.reformats[engine])

    @property
    def extra_ms(self) -> float:
        """Time in the second engine above that in the first."""
        return self.ms(1) - self.ms(0)

    @property
    def matched(self) -> bool:
        return bool(self.layers[0] and self.layers[1])

    @property
    def fused_differently(self) -> bool:
        return self.matched and _partition(self.layers[0]) != _partition(self.layers[1])

    def describe(self, engine: int) -> str:
        """``Conv + SiLU`` or ``Conv | SiLU | 2 Reformats``: layers of one engine and what each computes."""
        parts = [" + ".join(operations(onnx_nodes(layer))) for layer in self.layers[engine]]
        count = len(self.reformats[engine])
        return " | ".join(parts + ([f"{count} Reformat{'s' * (count > 1)}"] if count else []))


@dataclass(frozen=True)
class Comparison:
    """The first engine is the reference; the findings are about the second.

    Attributes:
        regions: in the order of the second engine.
        only_second, only_first, both: findings, avoidable ones first, then the most costly.
    """

    graphs: Tuple[EngineGraph, EngineGraph]
    regions: List[Region]
    only_second: List[Finding]
    only_first: List[Finding]
    both: List[Finding]

    @property
    def fusions(self) -> List[Region]:
        """Regions fused differently: what costs the second engine most first."""
        found = [region for region in self.regions if region.fused_differently]
        return sorted(found, key=lambda region: -region.extra_ms)

    @property
    def aligned(self) -> List[Tuple[int, int]]:
        """(layer of the first, layer of the second engine) where the regions begin."""
        return [(region.layers[0][0].index, region.layers[1][0].index) for region in self.regions if region.matched]


def compare(first: EngineGraph, second: EngineGraph) -> Comparison:
    """Align two engines and sort their findings by whether the other has them too."""
    regions = align(first, second)
    found = [find_problems(first), find_problems(second) + _less_precise(regions)]
    found[1].sort(key=by_cost)
    keys = [{finding.key for finding in findings} for findings in found]
    return Comparison((first, second), regions, [finding for finding in found[1] if finding.key not in keys[0]],
                      [finding for finding in found[0] if finding.key not in keys[1]],
                      [finding for finding in found[1] if finding.key in keys[0]])


def align(first: EngineGraph, second: EngineGraph) -> List[Region]:
    """Regions of both engines. Layers without ONNX nodes, and what runs on constants alone, are in none."""
    graphs = (first, second)
    owners: Dict[str, List[Place]] = defaultdict(list)
    for engine, graph in enumerate(graphs):
        for layer in graph.layers:
            if not is_reformat(layer) and layer.index not in graph.constant:
                for node in onnx_nodes(layer):
                    owners[node].append((engine, layer.index))
    parent: Dict[Place, Place] = {place: place for places in owners.values() for place in places}

    def find(place: Place) -> Place:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for places in owners.values():
        for place in places[1:]:
            parent[find(place)] = find(places[0])
    regions: Dict[Place, Region] = {}
    for place in sorted(parent, key=lambda place: (-place[0], place[1])):  # the second engine's order
        regions.setdefault(find(place), Region("")).layers[place[0]].append(graphs[place[0]].layers[place[1]])
    for engine, graph in enumerate(graphs):
        for layer in graph.layers:
            if is_reformat(layer) and layer.index not in graph.constant:
                place = _neighbour(graph, engine, layer, parent)
                if place is not None:
                    regions[find(place)].reformats[engine].append(layer)
    for region in regions.values():
        layers = region.layers[0] + region.layers[1]
        region.name = common_module([node for layer in layers for node in onnx_nodes(layer)])
    return list(regions.values())


def _neighbour(graph: EngineGraph, engine: int, layer: Layer, known: Dict[Place, Place]) -> Optional[Place]:
    """The layer that makes what a Reformat converts; for a network input the one that reads it."""
    for near in graph.follow(layer, is_reformat, back=True) + graph.follow(layer, is_reformat):
        if (engine, near.index) in known:
            return engine, near.index
    return None


def _partition(layers: Sequence[Layer]) -> Set[FrozenSet[str]]:
    return {frozenset(onnx_nodes(layer)) for layer in layers}


def _less_precise(regions: Sequence[Region]) -> List[Finding]:
    """Convolutions that run in INT8 in the first engine and in float in the second."""
    findings = []
    for region in regions:
        convs = [[layer for layer in layers if kind(layer) == "conv"] for layers in region.layers]
        if any(precision(layer) == "Int8" for layer in convs[0]):
            floats = [layer for layer in convs[1] if precision(layer) != "Int8"]
            if floats:
                text = f"{region.name}: the convolution runs in {precision(floats[0])}, in the other engine in Int8"
                advice = f"quantize {region.name}, unless accuracy forbids it (--ignore-policy)"
                findings.append(make_finding(("float", region.name), text, advice, floats))
    return findings
