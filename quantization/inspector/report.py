"""Findings by engine and cause, numbered, and as text for the terminal."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Iterable, Sequence

from quantization.inspector.causes import CAUSES, RULED, RULES, Finding
from quantization.inspector.compare import Comparison
from quantization.inspector.drawing import node_id
from quantization.inspector.findings import find_problems
from quantization.inspector.names import shorten
from quantization.inspector.summary import Summary, Tally, as_text, summarise, table
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import counted, words

_LISTED = 10  # findings of a section, and regions fused differently, that the terminal shows
_PLACES = 4
_WIDTH = 120


@dataclass(frozen=True)
class Group:
    """Findings of one cause, the most costly first.

    Attributes:
        findings: with their numbers, which count through the whole report.
        avoidable: whether they are; a cause that has both sorts makes two groups.
    """

    cause: str
    avoidable: bool
    timed: bool
    findings: list[tuple[int, Finding]]

    @property
    def cost(self) -> str:
        return cost([finding for _, finding in self.findings], self.timed)

    @property
    def heading(self) -> str:
        expected = "" if self.avoidable else "expected: "
        return f"{expected}{self.cause}, {counted(len(self.findings), 'finding')}, {self.cost}"


@dataclass(frozen=True)
class Section:
    """Findings about one engine.

    Attributes:
        engine: 0 or 1.
        groups: avoidable ones first, then the most costly.
        opened: whether the page shows it unfolded.
        note: a remark on some of the causes, which one section of a report has; empty in the others.
    """

    heading: str
    engine: int
    groups: list[Group]
    opened: bool = True
    note: str = ""


def sections(comparison: Comparison) -> list[Section]:
    """What a comparison found, what explains the difference first."""
    first, second = (graph.engine.name for graph in comparison.graphs)
    return _sections(
        comparison.graphs,
        [
            (f"In {second}, not in {first}", 1, comparison.only_second, True),
            (f"In {first}, not in {second}", 0, comparison.only_first, True),
            (f"In both (cost in {second})", 1, comparison.both, False),
        ],
    )


def single_section(graph: EngineGraph) -> list[Section]:
    """What was found in one engine; empty if nothing."""
    return _sections([graph], [("Findings", 0, find_problems(graph), True)])


def _sections(
    graphs: Sequence[EngineGraph], contents: Iterable[tuple[str, int, Sequence[Finding], bool]]
) -> list[Section]:
    found: list[Section] = []
    number = 0
    for heading, engine, findings, opened in contents:
        by_cause: dict[tuple[str, bool], list[Finding]] = {}
        for finding in findings:
            by_cause.setdefault((finding.cause, finding.avoidable), []).append(finding)
        groups = []
        for (cause, avoidable), members in sorted(by_cause.items(), key=_group_order):
            numbered = list(enumerate(sorted(members, key=lambda finding: -finding.cost_ms), number + 1))
            number += len(members)
            groups.append(Group(cause, avoidable, graphs[engine].engine.timed, numbered))
        ruled = [group.cause for group in groups if group.avoidable and group.cause in RULED]
        note = f"{words(ruled)}: {RULES}." if ruled and not any(section.note for section in found) else ""
        if groups:
            found.append(Section(heading, engine, groups, opened, note))
    return found


def _group_order(item: tuple[tuple[str, bool], list[Finding]]) -> tuple[bool, float, int, str]:
    (cause, avoidable), members = item
    return not avoidable, -sum(finding.cost_ms for finding in members), -len(members), cause


def marks(report: Sequence[Section]) -> dict[str, int]:
    """Node of the drawing -> number of its avoidable finding."""
    return {
        node_id(section.engine, index): number
        for section in report
        for group in section.groups
        if group.avoidable
        for number, finding in group.findings
        for index in finding.layers
    }


def notes(report: Sequence[Section]) -> list[str]:
    """The most costly avoidable causes of the first section, for a drawing that has no report above it."""
    groups = [group for section in report[:1] for group in section.groups if group.avoidable]
    lines = []
    for group in groups[:3]:
        lines += textwrap.wrap(f"{group.heading}: {CAUSES[group.cause].why}", 200)
        lines += textwrap.wrap(f"first of them: {group.findings[0][1].text}", 200)
    return [report[0].heading, *lines] if lines else []


def sections_text(report: Sequence[Section]) -> str:
    """Findings for a terminal: of the avoidable ones the most costly, of the expected ones a line per cause."""
    explained: set[str] = set()
    return "\n\n".join(f"{section.heading}:\n{_section_text(section, explained)}" for section in report)


def _section_text(section: Section, explained: set[str]) -> str:
    """One section; a cause in ``explained`` is not explained again, the others are added to it."""
    numbered = [pair for group in section.groups if group.avoidable for pair in group.findings]
    shown = {number for number, _ in sorted(numbered, key=lambda pair: -pair[1].cost_ms)[:_LISTED]}
    lines: list[str] = []
    for group in section.groups:
        cause = CAUSES[group.cause]
        places = [] if group.avoidable else [finding.key[1] for _, finding in group.findings if finding.key[1]]
        more = f", and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
        listed = f": {', '.join(places[:_PLACES])}{more}" if places else ""
        why = "" if group.cause in explained else f": {cause.why}"
        lines += _wrap(f"{group.heading}{why}{listed}.", 2)
        if not group.avoidable:
            continue
        if cause.change and why:
            lines += _wrap(f"Change: {cause.change}.", 4)
        for number, finding in group.findings:
            if number in shown:
                change = f". Change: {finding.advice}" if finding.advice else ""
                lines += _wrap(f"{number:3d}. {cost([finding], group.timed)}  {finding.text}{change}.", 4)
        rest = [finding for number, finding in group.findings if number not in shown]
        if rest:
            lines.append(f"         and {len(rest)} more, {cost(rest, group.timed)}")
    explained |= {group.cause for group in section.groups}
    lines += _wrap(section.note, 2)
    return "\n".join(lines)


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 5),
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def cost(findings: Sequence[Finding], timed: bool) -> str:
    """Time of some findings; without a profile the number of their layers."""
    if timed:
        return f"{1000 * sum(finding.cost_ms for finding in findings):.1f} us"
    return counted(sum(len(finding.layers) for finding in findings), "layer")


def headline(summaries: Sequence[Summary]) -> str:
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
        f"{second.name} takes {second.all.ms:.3f} ms in all layers, {first.name} {first.all.ms:.3f} ms. Difference "
        f"{extra(second.all.ms - first.all.ms, summaries)}: "
        + ", ".join(f"{name} {extra(differences[name], summaries)}" for name in largest)
        + "."
    )


def comparison_text(comparison: Comparison) -> str:
    """The report for a terminal."""
    summaries = [summarise(graph) for graph in comparison.graphs]
    names = [each.name for each in summaries]
    parts = [headline(summaries), *filter(None, [sections_text(sections(comparison))])]
    if comparison.fusions:
        rows = [
            (each.name, [shorten(each.describe(0)), shorten(each.describe(1)), extra(each.extra_ms, summaries)])
            for each in comparison.fusions[:_LISTED]
        ]
        more = len(comparison.fusions) - len(rows)
        parts.append(
            "Fused differently:\n" + as_text(rows, [*names, "difference"]) + (f"\nand {more} more" if more else "")
        )
    return "\n\n".join([*parts, as_text(table(summaries), names)])


def single_text(graph: EngineGraph) -> str:
    """The report on one engine for a terminal."""
    summary = summarise(graph)
    found = sections_text(single_section(graph)) or "Findings: none"
    return f"{found}\n\n{as_text(table([summary]), [summary.name])}"


def extra(ms: float, summaries: Sequence[Summary]) -> str:
    """A difference of times with its sign; empty unless both engines have a profile."""
    return f"{1000 * ms:+.1f} us" if all(each.timed for each in summaries) else ""
