"""Convolutions that one of two engines computes in INT8 and the other in float: which way is faster."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Sequence

from quantization.inspector.causes import FLOAT_STEM, EngineFinding, make_finding
from quantization.inspector.names import counted, words
from quantization.inspector.records import Layer, time_ms
from quantization.inspector.regions import Region
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import conversions, modules, network_input

_NOISE = 0.05  # two ways that differ by less, relative to the slower one, count as equally fast


@dataclass(frozen=True)
class Way:
    """How one engine computes the convolutions of a region.

    Attributes:
        convs: the convolutions.
        layers: the region's, and the Reformats that exist for them alone, before and behind.
    """

    graph: EngineGraph
    convs: list[Layer]
    layers: list[Layer]

    @property
    def precisions(self) -> set[str]:
        """Of the convolutions."""
        return {layer.precision for layer in self.convs}

    @property
    def places(self) -> set[int]:
        """Indices of the layers."""
        return {layer.index for layer in self.layers}

    @property
    def ms(self) -> float:
        """Time of the layers."""
        return time_ms(self.layers)

    @property
    def ends(self) -> tuple[set[str], set[str]]:
        """(datatypes that enter the layers, datatypes that leave them)."""
        edges = [edge for edge in self.graph.edges if edge.source not in self.graph.constant]
        inside = self.places
        return (
            {edge.tensor.datatype for edge in edges if edge.target in inside and edge.source not in inside},
            {edge.tensor.datatype for edge in edges if edge.source in inside and edge.target not in inside},
        )

    def describe(self) -> str:
        """``650.0 us in Int8 in ptq (250.0 us of it in 2 Reformats)``."""
        text = f"{1000 * self.ms:.1f} us in {self.convs[0].precision} in {self.graph.engine.name}"
        reformats = [layer for layer in self.layers if layer.is_reformat]
        if reformats:
            text += f" ({1000 * time_ms(reformats):.1f} us of it in {counted(len(reformats), 'Reformat')})"
        return text


def with_precisions(
    graphs: Sequence[EngineGraph], regions: Sequence[Region], found: Sequence[list[EngineFinding]]
) -> list[list[EngineFinding]]:
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
        ways = [_way(graph, layers) for graph, layers in zip(graphs, region.layers)]
        slower = _slower(ways)
        if slower is None or _explained(ways, merged):
            continue
        for engine, way in enumerate(ways):
            places = way.places
            merged[engine] = [finding for finding in merged[engine] if not set(finding.layers) <= places]
        merged[slower].append(_finding(ways[slower], ways[1 - slower]))
    return merged


def _way(graph: EngineGraph, layers: list[Layer]) -> Way:
    around = conversions(graph, layers, back=True) + conversions(graph, layers)
    return Way(graph, [layer for layer in layers if layer.kind == "conv"], layers + around)


def _slower(ways: Sequence[Way]) -> int | None:
    """The engine that is slower for being in another precision; None if that cannot be said."""
    types = [way.precisions for way in ways]
    if len(types[0]) != 1 or len(types[1]) != 1 or types[0] == types[1] or {"Int8"} not in types:
        return None
    slower = 1 if ways[1].ms >= ways[0].ms else 0
    if ways[slower].ms - ways[1 - slower].ms <= _NOISE * ways[slower].ms:
        return None
    if types[slower] == {"Int8"} and ways[0].ends != ways[1].ends:
        return None
    return slower


def _explained(ways: Sequence[Way], found: Sequence[list[EngineFinding]]) -> bool:
    """Does an avoidable finding of another cause make one of the ways slow?"""
    return any(
        finding.avoidable and finding.cause != "stem" and way.places & set(finding.layers)
        for way, findings in zip(ways, found)
        for finding in findings
    )


def _finding(slow: Way, fast: Way) -> EngineFinding:
    names = words(modules(slow.convs))
    known = False
    if fast.convs[0].precision == "Int8":
        known = all(conv in slow.graph.detects for conv in slow.convs)
        advice = f"quantize {names}, if accuracy allows"
        if known:
            advice = f"{names} is in float for accuracy; --head int8 of quant-tools is faster"
    else:
        image = any(network_input(slow.graph, conv) for conv in slow.convs)
        policy = " ".join(map(re.escape, modules(slow.convs)))
        option = FLOAT_STEM if image else f"quant-tools: --ignore-policy {policy}"
        advice = f"leave {names} in float ({option})"
    text = f"{names}: {slow.describe()}, {fast.describe()}"
    finding = make_finding(("precision", names), text, advice, slow.layers, avoidable=not known)
    return replace(finding, cost_ms=slow.ms - fast.ms)
