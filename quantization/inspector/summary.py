"""Counts and times of an engine: by kind, by precision, by what its Reformats do."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Iterable, Sequence

from quantization.inspector.classify import KINDS, PRECISIONS, is_reformat, kind, origin, precision, type_change
from quantization.inspector.layers import Layer
from quantization.inspector.topology import EngineGraph


@dataclass(frozen=True)
class Tally:
    """Number of layers and their time.

    Attributes:
        ms: 0 without a profile.
    """

    count: int = 0
    ms: float = 0.0


@dataclass(frozen=True)
class Summary:
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


def summarise(graph: EngineGraph) -> Summary:
    """Count and add up the layers of an engine."""

    def kind_of(layer: Layer) -> str:
        return "constant" if layer.index in graph.constant else kind(layer)

    layers = graph.layers
    active = [layer for layer in layers if layer.index not in graph.constant]
    reformats = [layer for layer in active if is_reformat(layer)]
    computing = [layer for layer in active if not is_reformat(layer) and kind(layer) != "no-op"]
    changing = [layer for layer in reformats if type_change(layer)]
    return Summary(
        graph.engine.name,
        graph.engine.timed,
        Tally(len(layers), graph.engine.total_ms),
        _tally(layers, kind_of, KINDS),
        _tally(computing, precision, PRECISIONS),
        _tally(reformats, origin),
        _tally(changing, lambda layer: " to ".join(type_change(layer) or ())),
    )


def _tally(layers: Iterable[Layer], key: Callable[[Layer], str], order: Sequence[str] = ()) -> dict[str, Tally]:
    """Tallies by key: in the given order, else the largest first."""
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[key(layer)].append(layer)
    tallies = {name: Tally(len(group), sum(layer.time_ms or 0.0 for layer in group)) for name, group in groups.items()}
    names = [name for name in order if name in tallies] or sorted(tallies, key=lambda name: -tallies[name].count)
    return {name: tallies[name] for name in names}


def table(summaries: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Rows of (label, one cell per engine); a row without cells is a heading."""
    rows: list[tuple[str, list[str]]] = [("layers, time of all", [_cell(each.all, each) for each in summaries])]
    for heading, part in (
        ("by kind", "kinds"),
        ("computing layers by precision", "precisions"),
        ("Reformats by origin", "origins"),
        ("Reformats that change type", "changes"),
    ):
        rows.append((heading, []))
        parts: list[dict[str, Tally]] = [getattr(each, part) for each in summaries]
        for name in dict.fromkeys(name for tallies in parts for name in tallies):
            cells = [_cell(tallies.get(name, Tally()), each) for tallies, each in zip(parts, summaries)]
            rows.append((f"  {name}", cells))
        rows.append(("  sum", [_cell(_sum(tallies), each) for tallies, each in zip(parts, summaries)]))
    return rows


def _sum(tallies: dict[str, Tally]) -> Tally:
    return Tally(sum(tally.count for tally in tallies.values()), sum(tally.ms for tally in tallies.values()))


def _cell(tally: Tally, summary: Summary) -> str:
    if not summary.timed:
        return str(tally.count)
    share = 100 * tally.ms / summary.all.ms if summary.all.ms else 0.0
    return f"{tally.count:4d} {1000 * tally.ms:9.1f} us {share:5.1f} %"


def as_text(rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """The table for a terminal."""
    lines = [("", list(names)), *rows]
    first = max(len(label) for label, _ in lines)
    widths = [max(len(cells[column]) for _, cells in lines if cells) for column in range(len(names))]
    return "\n".join("  ".join([label.ljust(first), *map(str.rjust, cells, widths)]).rstrip() for label, cells in lines)
