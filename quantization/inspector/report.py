"""All that is said about one engine or two, as data; ``text``, ``page`` and ``drawing`` show it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Iterable, Sequence

from quantization.inspector.causes import CAUSES, RULED, RULES, Cause, EngineFinding
from quantization.inspector.compare import Comparison
from quantization.inspector.findings import find_problems
from quantization.inspector.names import counted, words
from quantization.inspector.summary import EngineSummary, Tally, figures, summarise
from quantization.inspector.topology import EngineGraph
from quantization.tables import Place, Row, Table

COSTLIEST = 5  # findings that a page shows unfolded


@dataclass(frozen=True)
class Item:
    """A finding in a report.

    Attributes:
        number: counts through the whole report.
        places: the layers that the finding costs.
        cost: its time; without a profile the number of its layers.
    """

    number: int
    finding: EngineFinding
    places: Sequence[Place]
    cost: str


@dataclass(frozen=True)
class Group:
    """Findings of one cause, the most costly first.

    Attributes:
        name: the cause, one of ``CAUSES``.
        avoidable: whether they are; a cause that has both sorts makes two groups.
        explained: whether a group above it has the same cause.
        timed: whether the engine has times.
    """

    name: str
    avoidable: bool
    explained: bool
    timed: bool
    items: Sequence[Item]

    @property
    def cause(self) -> Cause:
        """What is common to the findings."""
        return CAUSES[self.name]

    @property
    def heading(self) -> str:
        """``scales, 1 finding, 26.0 us``."""
        cost = cost_text([item.finding for item in self.items], self.timed)
        return f"{'' if self.avoidable else 'expected: '}{self.name}, {counted(len(self.items), 'finding')}, {cost}"


@dataclass(frozen=True)
class Section:
    """Findings about one engine.

    Attributes:
        groups: avoidable ones first, then the most costly.
        note: a remark on some of the causes, which one section of a report has; empty in the others.
    """

    heading: str
    groups: Sequence[Group]
    note: str = ""


@dataclass(frozen=True)
class EngineReport:
    """The report on one engine, or on two of one network.

    Attributes:
        heading: what it is about.
        headline: how two engines differ, or what one does, in one sentence.
        graphs: the engines.
        summaries: their figures, for charts.
        sections: what was found; what explains a difference first.
        fusions: what two engines fuse differently; without rows for one.
        figures: counts and times.
        aligned: (layer of the first, layer of the second engine) that correspond.
    """

    heading: str
    headline: str
    graphs: Sequence[EngineGraph]
    summaries: Sequence[EngineSummary]
    sections: Sequence[Section]
    fusions: Table
    figures: Table
    aligned: Sequence[tuple[int, int]] = ()

    @property
    def costliest(self) -> list[Item]:
        """The avoidable findings that cost most, ``COSTLIEST`` at most; of two engines those of the second."""
        groups = [group for section in self.sections for group in section.groups if group.avoidable]
        engine = len(self.graphs) - 1
        items = [item for group in groups for item in group.items if {place[0] for place in item.places} == {engine}]
        return sorted(items, key=lambda item: (-item.finding.cost_ms, -len(item.places)))[:COSTLIEST]

    @cached_property
    def marks(self) -> dict[Place, int]:
        """Layers to the numbers of their avoidable findings."""
        groups = [group for section in self.sections for group in section.groups if group.avoidable]
        return {place: item.number for group in groups for item in group.items for place in item.places}


def report_engine(graph: EngineGraph) -> EngineReport:
    """The report on one engine."""
    sections = _sections([graph], [("Findings", 0, find_problems(graph))])
    summary = summarise(graph)
    return EngineReport(
        summary.name, _sum_line(summary), [graph], [summary], sections, Table([summary.name], []), figures([summary])
    )


def report_comparison(comparison: Comparison) -> EngineReport:
    """The report on two engines."""
    summaries = [summarise(graph) for graph in comparison.graphs]
    first, second = (each.name for each in summaries)
    sections = _sections(
        comparison.graphs,
        [
            (f"In {second}, not in {first}", 1, comparison.only_second),
            (f"In {first}, not in {second}", 0, comparison.only_first),
            (f"In both (cost in {second})", 1, comparison.both),
        ],
    )
    return EngineReport(
        f"{second} compared with {first}",
        _headline(summaries),
        comparison.graphs,
        summaries,
        sections,
        _fusions(comparison, summaries),
        figures(summaries),
        comparison.aligned,
    )


def _sections(
    graphs: Sequence[EngineGraph], contents: Iterable[tuple[str, int, Sequence[EngineFinding]]]
) -> list[Section]:
    found: list[Section] = []
    explained: set[str] = set()
    number = 0
    for heading, engine, findings in contents:
        groups = []
        before = frozenset(explained)
        for name, avoidable, members in _by_cause(findings):
            timed = graphs[engine].engine.timed
            items = [
                Item(position, finding, [(engine, index) for index in finding.layers], cost_text([finding], timed))
                for position, finding in enumerate(members, number + 1)
            ]
            number += len(members)
            groups.append(Group(name, avoidable, name in before, timed, items))
            explained.add(name)
        ruled = [group.name for group in groups if group.avoidable and group.name in RULED]
        note = f"{words(ruled)}: {RULES}." if ruled and not any(section.note for section in found) else ""
        if groups:
            found.append(Section(heading, groups, note))
    return found


def _by_cause(findings: Sequence[EngineFinding]) -> list[tuple[str, bool, list[EngineFinding]]]:
    """(cause, avoidable, findings): avoidable ones first, then the most costly, and so within each."""
    groups: dict[tuple[str, bool], list[EngineFinding]] = {}
    for finding in sorted(findings, key=lambda finding: -finding.cost_ms):
        groups.setdefault((finding.cause, finding.avoidable), []).append(finding)

    def order(item: tuple[tuple[str, bool], list[EngineFinding]]) -> tuple[bool, float, int, str]:
        (cause, avoidable), members = item
        return not avoidable, -sum(finding.cost_ms for finding in members), -len(members), cause

    return [(*key, members) for key, members in sorted(groups.items(), key=order)]


def cost_text(findings: Sequence[EngineFinding], timed: bool) -> str:
    """Time of some findings; without a profile the number of their layers."""
    if timed:
        return f"{1000 * sum(finding.cost_ms for finding in findings):.1f} us"
    return counted(sum(len(finding.layers) for finding in findings), "layer")


def _fusions(comparison: Comparison, summaries: Sequence[EngineSummary]) -> Table:
    rows = [
        Row(
            region.name or "several modules",
            [region.describe(0), region.describe(1), _difference(region.extra_ms, summaries)],
            places=[(engine, layer.index) for engine in (1, 0) for layer in region.layers[engine]],
        )
        for region in comparison.fusions
    ]
    return Table([*(each.name for each in summaries), "difference"], rows)


def _sum_line(summary: EngineSummary) -> str:
    """The time of one engine, and the kinds of layers that take most of it."""
    if not (summary.timed and summary.all.ms):
        return f"{summary.name} has {counted(summary.all.count, 'layer')}; give its profile to see times."
    largest = sorted(summary.kinds, key=lambda name: -summary.kinds[name].ms)[:3]
    shares = ", ".join(f"{name} {100 * summary.kinds[name].ms / summary.all.ms:.1f} %" for name in largest)
    return f"{summary.name} takes {summary.all.ms:.3f} ms in {counted(summary.all.count, 'layer')}: {shares}."


def _headline(summaries: Sequence[EngineSummary]) -> str:
    """The difference in one sentence: in sum, and by kind, the largest first."""
    first, second = summaries
    if not (first.timed and second.timed):
        return (
            f"{second.name} has {counted(second.all.count, 'layer')}, {first.name} {first.all.count}; "
            "give both profiles to compare times."
        )
    differences = {
        name: second.kinds.get(name, Tally()).ms - first.kinds.get(name, Tally()).ms
        for name in dict.fromkeys([*first.kinds, *second.kinds])
    }
    largest = sorted(differences, key=lambda name: -abs(differences[name]))[:3]
    return (
        f"{second.name} takes {second.all.ms:.3f} ms in all layers, {_relative(first, second)} {first.name} "
        f"({first.all.ms:.3f} ms). Difference {_difference(second.all.ms - first.all.ms, summaries)}: "
        + ", ".join(f"{name} {_difference(differences[name], summaries)}" for name in largest)
        + "."
    )


def _relative(first: EngineSummary, second: EngineSummary) -> str:
    """``9.2 % less than``, of the first engine's time."""
    percent = f"{100 * abs(second.all.ms / first.all.ms - 1):.1f}" if first.all.ms else "0.0"
    if float(percent) == 0:
        return "as much as"
    return f"{percent} % {'less' if second.all.ms < first.all.ms else 'more'} than"


def _difference(ms: float, summaries: Sequence[EngineSummary]) -> str:
    """A difference of times with its sign; empty unless both engines have a profile."""
    return f"{1000 * ms:+.1f} us" if all(each.timed for each in summaries) else ""
