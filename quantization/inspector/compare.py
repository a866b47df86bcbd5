"""What two engines of one network do differently."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from quantization.inspector.causes import EngineFinding
from quantization.inspector.findings import by_cost, find_problems
from quantization.inspector.precisions import with_precisions
from quantization.inspector.regions import Region, align
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import concats_by_reader


@dataclass(frozen=True)
class Comparison:
    """The first engine is the reference; the findings are about the second.

    Attributes:
        regions: in the order of the second engine.
        only_second, only_first, both: findings, avoidable ones first, then the most costly.
    """

    graphs: tuple[EngineGraph, EngineGraph]
    regions: list[Region]
    only_second: list[EngineFinding]
    only_first: list[EngineFinding]
    both: list[EngineFinding]

    @cached_property
    def fusions(self) -> list[Region]:
        """Regions fused differently: what costs the second engine most first."""
        found = [region for region in self.regions if region.fused_differently]
        return sorted(found, key=lambda region: -region.extra_ms)

    @property
    def aligned(self) -> list[tuple[int, int]]:
        """(layer of the first, layer of the second engine) where the regions begin."""
        return [(region.layers[0][0].index, region.layers[1][0].index) for region in self.regions if region.matched]


def compare_engines(first: EngineGraph, second: EngineGraph) -> Comparison:
    """Align two engines and sort their findings by whether the other has them too."""
    # each may use the other's names of Concats
    first = EngineGraph(first.engine, concats_by_reader(second))
    second = EngineGraph(second.engine, concats_by_reader(first))
    regions = align(first, second)
    found = with_precisions((first, second), regions, [find_problems(first), find_problems(second)])
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
