"""Counts and times of an engine: by kind, by precision, by what its Reformats do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Iterable, Sequence

from quantization.inspector.classify import KINDS, PRECISIONS
from quantization.inspector.records import Layer, time_ms
from quantization.inspector.topology import EngineGraph
from quantization.tables import Row, Table


@dataclass(frozen=True)
class Tally:
    """Number of layers and their time.

    Attributes:
        ms: 0 without a profile.
    """

    count: int = 0
    ms: float = 0.0


@dataclass(frozen=True)
class EngineSummary:
    """An engine in figures.

    Attributes:
        kinds: by ``classify.KINDS``. Copies of constants count as constants.
        precisions: layers that compute, that is without Reformats, no-ops and constants.
        origins: Reformats by why they exist, without copies of constants.
        changes: Reformats by change of type (``FP16 to Int8``), without copies of constants.
    """

    name: str
    timed: bool
    all: Tally
    kinds: dict[str, Tally]
    precisions: dict[str, Tally]
    origins: dict[str, Tally]
    changes: dict[str, Tally]


def summarise(graph: EngineGraph) -> EngineSummary:
    """Count and add up the layers of an engine."""

    def kind(layer: Layer) -> str:
        return "constant" if layer.index in graph.constant else layer.kind

    active = graph.active()
    reformats = [layer for layer in active if layer.is_reformat]
    return EngineSummary(
        graph.engine.name,
        graph.engine.timed,
        Tally(len(graph.layers), graph.engine.total_ms),
        _tally(graph.layers, kind, KINDS),
        _tally((layer for layer in active if not layer.passes_on), lambda layer: layer.precision, PRECISIONS),
        _tally(reformats, lambda layer: layer.reason),
        _tally((layer for layer in reformats if layer.type_change), lambda layer: " to ".join(layer.type_change or ())),
    )


def _tally(layers: Iterable[Layer], key: Callable[[Layer], str], order: Sequence[str] = ()) -> dict[str, Tally]:
    """Tallies by key: in the given order, else the largest first."""
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[key(layer)].append(layer)
    tallies = {name: Tally(len(group), time_ms(group)) for name, group in groups.items()}
    names = [name for name in order if name in tallies] or sorted(tallies, key=lambda name: -tallies[name].count)
    return {name: tallies[name] for name in names}


def figures(summaries: Sequence[EngineSummary]) -> Table:
    """All of them side by side, a column per engine; of engines with times, without what takes none in any."""
    rows = [Row("layers, time of all", [_cell(each.all, each) for each in summaries])]
    for heading, parts in (
        ("by kind", [each.kinds for each in summaries]),
        ("computing layers by precision", [each.precisions for each in summaries]),
        ("Reformats by origin", [each.origins for each in summaries]),
        ("Reformats that change type", [each.changes for each in summaries]),
    ):
        rows.append(Row(heading))
        for name in dict.fromkeys(name for tallies in parts for name in tallies):
            found = [tallies.get(name, Tally()) for tallies in parts]
            if all(each.timed for each in summaries) and not any(tally.ms for tally in found):
                continue
            cells = [_cell(tally, each) for tally, each in zip(found, summaries)]
            rows.append(Row(name, cells, indent=True))
        rows.append(Row("sum", [_cell(_sum(tallies), each) for tallies, each in zip(parts, summaries)], indent=True))
    return Table([each.name for each in summaries], rows)


def _sum(tallies: dict[str, Tally]) -> Tally:
    return Tally(sum(tally.count for tally in tallies.values()), sum(tally.ms for tally in tallies.values()))


def _cell(tally: Tally, summary: EngineSummary) -> str:
    if not summary.timed:
        return str(tally.count)
    share = 100 * tally.ms / summary.all.ms if summary.all.ms else 0.0
    return f"{tally.count:4d} {1000 * tally.ms:9.1f} us {share:5.1f} %"
