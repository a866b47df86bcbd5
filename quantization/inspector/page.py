"""The report as one HTML file, with the drawing to pan and zoom."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Iterator, Sequence

from quantization.inspector.causes import CAUSES
from quantization.inspector.drawing import node_id
from quantization.inspector.names import counted
from quantization.inspector.plots import overview
from quantization.inspector.report import EngineReport, Group, Item, Section, cost_text
from quantization.inspector.topology import EngineGraph
from quantization.tables import Place, Row, table_html

_TEMPLATE = Path(__file__).with_name("viewer.html")


def engine_page(report: EngineReport, drawing: bytes) -> str:
    """One self-contained HTML file: the report, the drawing to pan and zoom, and the record of every layer.

    Args:
        report: what to say above the drawing.
        drawing: SVG of ``drawing.engine_dot``.

    Raises:
        UserError: two engines are compared and matplotlib, for their chart, is not installed.
    """
    svg = drawing.decode("utf-8")
    records: dict[str, object] = {}
    for engine, graph in enumerate(report.graphs):
        for layer in graph.layers:
            times = {} if layer.time_ms is None else {"time in ms (profile)": round(layer.time_ms, 4)}
            records[node_id((engine, layer.index))] = {**times, **layer.record, "Name": layer.name}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(" and ".join(graph.engine.name for graph in report.graphs)),
        top=top_html(report),
        drawing=svg[svg.index("<svg") :],
        rest=rest_html(report),
        begin=", ".join(_beginning(number, graph) for number, graph in enumerate(report.graphs)),
        records=json.dumps(records).replace("<", "\\u003c"),
    )  # a name must not close the script element


def top_html(report: EngineReport) -> str:
    """What stands above the drawing: the difference as a sentence and as bars, and the costliest findings."""
    parts = [f"<h1>{escape(report.heading)}</h1>"]
    parts.append(f"<p>{escape(report.headline)}</p>")
    parts += [f"<figure>{overview(report.summaries)}</figure>"] if len(report.graphs) > 1 else []
    if report.costliest:
        parts.append(f"<h2>Costliest findings</h2><ol id=costliest>{''.join(_costly(report.costliest))}</ol>")
    else:
        parts.append(f"<p>Nothing avoidable was found in {escape(report.graphs[-1].engine.name)}.</p>")
    return "\n".join(parts)


def rest_html(report: EngineReport) -> str:
    """What stands below the drawing, folded: all findings by cause, what is fused differently, all figures."""
    parts = list(map(_section, report.sections))
    if report.fusions.rows:
        count = counted(len(report.fusions.rows), "place")
        parts.append(_folded(f"Fused differently: {count}", table_html(report.fusions, _label)))
    parts.append(_folded("In figures", table_html(report.figures, _label)))
    return "\n".join(parts)


def _folded(heading: str, body: str) -> str:
    return f"<details><summary><b>{escape(heading)}</b></summary>{body}</details>"


def _beginning(engine: int, graph: EngineGraph) -> str:
    """A link to the first layer of an engine that is drawn."""
    return _link(graph.engine.name, [(engine, layer.index) for layer in graph.active()[:1]])


def _section(section: Section) -> str:
    """Findings, folded under how many there are and what they cost."""
    items = [item for group in section.groups for item in group.items]
    cost = cost_text([item.finding for item in items], section.groups[0].timed)
    avoidable = sum(item.finding.avoidable for item in items)
    count = f"{counted(len(items), 'finding')}, {cost}, {avoidable or 'none'} avoidable"
    note = f"<p class=advice>{escape(section.note)}</p>" if section.note else ""
    return _folded(f"{section.heading}: {count}", "".join(map(_group, section.groups)) + note)


def _group(group: Group) -> str:
    """All findings of a cause; those of an expected one folded."""
    head = f"<b>{escape(group.heading)}</b>: {escape(group.cause.why)}."
    if group.avoidable and group.cause.change:
        head += f'<br><span class="advice">Change: {escape(group.cause.change)}.</span>'
    listed = f"<ol>{''.join(map(_item, group.items))}</ol>"
    if group.avoidable:
        return f"<section><p>{head}</p>{listed}</section>"
    return f"<details class=expected><summary>{head}</summary>{listed}</details>"


def _costly(items: Sequence[Item]) -> Iterator[str]:
    """Findings apart from their groups; the first of a cause says what all of that cause should change."""
    said: set[str] = set()
    for item in items:
        change = CAUSES[item.finding.cause].change
        yield _item(item, "" if change in said else change)
        said |= {change} if not item.finding.advice else set()


def _item(item: Item, change: str = "") -> str:
    finding = item.finding
    word = "Change: " if finding.avoidable else ""
    text = finding.advice or change
    advice = f'<br><span class="advice">{word}{escape(text)}.</span>' if text else ""
    return (
        f"<li value={item.number}><span class=cost>{item.cost}</span>: {escape(finding.text)} "
        f"{_link('show', item.places)}{advice}</li>"
    )


def _label(row: Row) -> str:
    return _link(row.label, row.places) if row.places else escape(row.label)


def _link(text: str, places: Sequence[Place]) -> str:
    return f'<a data-show="{" ".join(map(node_id, places))}">{escape(text)}</a>'
