"""A report for the terminal."""

from __future__ import annotations

import textwrap

from quantization.inspector.names import shorten
from quantization.inspector.report import EngineReport, Group, Item, Section, cost_text
from quantization.tables import Row, Table, table_text

_LISTED = 10  # findings of a section, and regions fused differently, that are shown
_PLACES = 4
_WIDTH = 120


def engine_text(report: EngineReport) -> str:
    """The report for a terminal."""
    parts = [report.headline]
    parts += [f"{section.heading}:\n{_section(section)}" for section in report.sections]
    if not report.sections and len(report.graphs) == 1:
        parts.append("Findings: none")
    if report.fusions.rows:
        parts.append(_fusions(report.fusions))
    return "\n\n".join([*parts, table_text(report.figures)])


def _section(section: Section) -> str:
    """Of the avoidable findings the most costly, of the expected ones a line per cause."""
    items = [item for group in section.groups if group.avoidable for item in group.items]
    costly = sorted(items, key=lambda item: -item.finding.cost_ms)[:_LISTED]
    shown = {item.number for item in costly}
    lines = [line for group in section.groups for line in _group(group, shown)]
    return "\n".join([*lines, *_wrap(section.note, 2)])


def _group(group: Group, shown: set[int]) -> list[str]:
    places = [] if group.avoidable else [item.finding.key[1] for item in group.items if item.finding.key[1]]
    more = f", and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    listed = f": {', '.join(places[:_PLACES])}{more}" if places else ""
    why = "" if group.explained else f": {group.cause.why}"
    lines = _wrap(f"{group.heading}{why}{listed}.", 2)
    if not group.avoidable:
        return lines
    if group.cause.change and not group.explained:
        lines += _wrap(f"Change: {group.cause.change}.", 4)
    for item in group.items:
        if item.number in shown:
            lines += _item(item)
    rest = [item.finding for item in group.items if item.number not in shown]
    if rest:
        lines.append(f"         and {len(rest)} more, {cost_text(rest, group.timed)}")
    return lines


def _item(item: Item) -> list[str]:
    change = f". Change: {item.finding.advice}" if item.finding.advice else ""
    return _wrap(f"{item.number:3d}. {item.cost}  {item.finding.text}{change}.", 4)


def _fusions(fusions: Table) -> str:
    rows = [Row(row.label, [shorten(cell) for cell in row.cells]) for row in fusions.rows[:_LISTED]]
    more = len(fusions.rows) - len(rows)
    table = table_text(Table(fusions.columns, rows))
    return f"Fused differently:\n{table}" + (f"\nand {more} more" if more else "")


def _wrap(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 5),
        break_on_hyphens=False,
        drop_whitespace=True,
    )
