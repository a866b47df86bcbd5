"""Two engines of one network, aligned by the ONNX nodes that TensorRT fused into their layers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Sequence, Tuple

from quantization.inspector.causes import Finding, make_finding, time_ms
from quantization.inspector.classify import is_reformat, kind, precision
from quantization.inspector.findings import by_cost, find_problems
from quantization.inspector.layers import Layer
from quantization.inspector.names import common_module, onnx_nodes, operations
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import conversions, counted, modules, name_concats, network_input, words

_NOISE = 0.05  # two ways that differ by less, as a part of the slower one, count as equally fast

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
    layers: tuple[list[Layer], list[Layer]] = field(default_factory=lambda: ([], []))
    reformats: tuple[list[Layer], list[Layer]] = field(default_factory=lambda: ([], []))

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

    graphs: tuple[EngineGraph, EngineGraph]
    regions: list[Region]
    only_second: list[Finding]
    only_first: list[Finding]
    both: list[Finding]

    @property
    def fusions(self) -> list[Region]:
        """Regions fused differently: what costs the second engine most first."""
        found = [region for region in self.regions if region.fused_differently]
        return sorted(found, key=lambda region: -region.extra_ms)

    @property
    def aligned(self) -> list[tuple[int, int]]:
        """(layer of the first, layer of the second engine) where the regions begin."""
        return [(region.layers[0][0].index, region.layers[1][0].index) for region in self.regions if region.matched]


def compare(first: EngineGraph, second: EngineGraph) -> Comparison:
    """Align two engines and sort their findings by whether the other has them too."""
    regions = align(first, second)
    name_concats(first, second)
    found = _other_precision((first, second), regions, [find_problems(first), find_problems(second)])
    for findings in found:
        findings.sort(key=by_cost)
    keys = [{finding.key for finding in findings} for findings in found]
    return Comparison(
        (first, second),
        regions,
        [finding for finding in found[1] if finding.key not in keys[0]],
        [finding for finding in found[0] if finding.key not in keys[1]],
        [finding for finding in found[1] if finding.key in keys[0]],
    )


def align(first: EngineGraph, second: EngineGraph) -> list[Region]:
    """Regions of both engines. Layers without ONNX nodes, and what runs on constants alone, are in none."""
    graphs = (first, second)
    owners: dict[str, list[Place]] = defaultdict(list)
    for engine, graph in enumerate(graphs):
        for layer in graph.layers:
            if not is_reformat(layer) and layer.index not in graph.constant:
                for node in onnx_nodes(layer):
                    owners[node].append((engine, layer.index))
    parent: dict[Place, Place] = {place: place for places in owners.values() for place in places}

    def find(place: Place) -> Place:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for places in owners.values():
        for place in places[1:]:
            parent[find(place)] = find(places[0])
    regions: dict[Place, Region] = {}
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


def _neighbour(graph: EngineGraph, engine: int, layer: Layer, known: dict[Place, Place]) -> Place | None:
    """The layer that makes what a Reformat converts; for a network input the one that reads it."""
    for near in graph.follow(layer, is_reformat, back=True) + graph.follow(layer, is_reformat):
        if (engine, near.index) in known:
            return engine, near.index
    return None


def _partition(layers: Sequence[Layer]) -> set[frozenset[str]]:
    return {frozenset(onnx_nodes(layer)) for layer in layers}


def _other_precision(
    graphs: tuple[EngineGraph, EngineGraph], regions: Sequence[Region], found: Sequence[list[Finding]]
) -> list[list[Finding]]:
    """Per engine, its findings, with those on convolutions that are INT8 in one engine and float in the other.

    Such a convolution is compared with the Reformats that exist for it alone, before and behind it, and the slower
    engine gets a finding that costs the difference. It stands for the findings on the single Reformats. There is none
    where an avoidable finding of another cause makes one of the ways slow, and none if float is faster because its
    neighbours are float as well: a float convolution among INT8 ones would need Reformats that no engine shows.
    """
    merged = [list(findings) for findings in found]
    if not all(graph.engine.timed for graph in graphs):
        return merged
    for region in regions:
        types = [{precision(layer) for layer in layers if kind(layer) == "conv"} for layers in region.layers]
        if len(types[0]) != 1 or len(types[1]) != 1 or types[0] == types[1] or {"Int8"} not in types:
            continue
        ways = [
            layers + conversions(graph, layers, back=True) + conversions(graph, layers)
            for graph, layers in zip(graphs, region.layers)
        ]
        places = [{layer.index for layer in way} for way in ways]
        inside = [[finding for finding in merged[engine] if places[engine] & set(finding.layers)] for engine in (0, 1)]
        if any(finding.avoidable and finding.cause != "stem" for findings in inside for finding in findings):
            continue
        slower = 1 if time_ms(ways[1]) >= time_ms(ways[0]) else 0
        if time_ms(ways[slower]) - time_ms(ways[1 - slower]) <= _NOISE * time_ms(ways[slower]):
            continue
        if types[slower] == {"Int8"} and _ends(graphs[0], places[0]) != _ends(graphs[1], places[1]):
            continue
        for engine in (0, 1):
            merged[engine] = [finding for finding in merged[engine] if not set(finding.layers) <= places[engine]]
        merged[slower].append(_precision_finding(graphs, region, ways, slower))
    return merged


def _ends(graph: EngineGraph, inside: set[int]) -> tuple[set[str], set[str]]:
    """(datatypes that enter a set of layers, datatypes that leave it)."""
    edges = [edge for edge in graph.edges if edge.source not in graph.constant]
    return (
        {edge.tensor.datatype for edge in edges if edge.target in inside and edge.source not in inside},
        {edge.tensor.datatype for edge in edges if edge.source in inside and edge.target not in inside},
    )


def _precision_finding(
    graphs: tuple[EngineGraph, EngineGraph], region: Region, ways: Sequence[list[Layer]], slower: int
) -> Finding:
    convs = [[layer for layer in layers if kind(layer) == "conv"] for layers in region.layers]
    names = modules(convs[slower])
    texts = []
    for engine in (slower, 1 - slower):
        text = f"{1000 * time_ms(ways[engine]):.1f} us in {precision(convs[engine][0])} in {graphs[engine].engine.name}"
        reformats = [layer for layer in ways[engine] if is_reformat(layer)]
        if reformats:
            text += f" ({1000 * time_ms(reformats):.1f} us of it in {counted(len(reformats), 'Reformat')})"
        texts.append(text)
    if precision(convs[1 - slower][0]) == "Int8":
        advice = f"quantize {words(names)}, if accuracy allows"
    else:
        image = any(network_input(graphs[slower], conv) for conv in convs[slower])
        option = "--stem float" if image else f"--ignore-policy {' '.join(map(re.escape, names))}"
        advice = f"leave {words(names)} in float (quant-tools: {option})"
    finding = make_finding(("precision", words(names)), f"{words(names)}: {', '.join(texts)}", advice, ways[slower])
    return replace(finding, cost_ms=time_ms(ways[slower]) - time_ms(ways[1 - slower]))
