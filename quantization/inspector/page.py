"""The report as one HTML file, with the drawing to pan and zoom."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Sequence

from quantization.inspector.causes import CAUSES, Finding
from quantization.inspector.compare import Comparison
from quantization.inspector.drawing import node_id
from quantization.inspector.plots import overview
from quantization.inspector.report import Group, Section, cost, extra, headline, sections, single_section
from quantization.inspector.summary import summarise, table
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import counted

_TEMPLATE = Path(__file__).with_name("viewer.html")


def page(drawing: bytes, graphs: Sequence[EngineGraph], report: str) -> str:
    """One self-contained HTML file: a report, the drawing to pan and zoom, and the record of every layer.

    Args:
        drawing: SVG from ``graph_drawing.render``.
        graphs: the engines in the drawing.
        report: HTML to put above it.
    """
    svg = drawing.decode("utf-8")
    records: dict[str, object] = {}
    for engine, graph in enumerate(graphs):
        for layer in graph.layers:
            times = {} if layer.time_ms is None else {"time in ms (profile)": layer.time_ms}
            records[node_id(engine, layer.index)] = {**times, **layer.record, "Name": layer.name}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(" and ".join(graph.engine.name for graph in graphs)),
        report=report,
        drawing=svg[svg.index("<svg") :],
        records=json.dumps(records).replace("<", "\\u003c"),
    )  # a name must not close the script element


def comparison_html(comparison: Comparison) -> str:
    """The report on two engines for ``page``."""
    summaries = [summarise(graph) for graph in comparison.graphs]
    names = [each.name for each in summaries]
    parts = [
        f"<main><h1>{escape(names[1])} compared with {escape(names[0])}</h1>",
        f"<p>{escape(headline(summaries))}</p>",
        *map(_section, sections(comparison)),
    ]
    if comparison.fusions:
        rows = [
            (
                _link(each.name, [node_id(engine, layer.index) for engine in (1, 0) for layer in each.layers[engine]]),
                [escape(each.describe(0)), escape(each.describe(1)), extra(each.extra_ms, summaries)],
            )
            for each in comparison.fusions
        ]
        parts.append(
            f"<details><summary><b>Fused differently: {counted(len(rows), 'place')}</b></summary>"
            f"{_table(rows, [*names, 'difference'])}</details>"
        )
    rows = [(escape(label), [escape(cell) for cell in cells]) for label, cells in table(summaries)]
    parts.append(f"<h2>In figures</h2><figure>{overview(summaries)}</figure>{_table(rows, names)}</main>")
    return "\n".join(parts)


def single_html(graph: EngineGraph) -> str:
    """The report on one engine for ``page``."""
    summary = summarise(graph)
    rows = [(escape(label), [escape(cell) for cell in cells]) for label, cells in table([summary])]
    return "\n".join(
        [
            f"<main><h1>{escape(summary.name)}</h1>",
            *map(_section, single_section(graph)),
            f"<details><summary><b>In figures</b></summary>{_table(rows, [summary.name])}</details></main>",
        ]
    )


def _section(section: Section) -> str:
    return (
        f"<details{' open' if section.opened else ''}><summary><b>{escape(section.heading)}</b></summary>"
        + "".join(_group(group, section.engine) for group in section.groups)
        + (f"<p class=advice>{escape(section.note)}</p>" if section.note else "")
        + "</details>"
    )


def _group(group: Group, engine: int) -> str:
    """All findings of a cause; those of an expected one folded."""
    cause = CAUSES[group.cause]
    head = f"<b>{escape(group.heading)}</b>: {escape(cause.why)}."
    if group.avoidable and cause.change:
        head += f'<br><span class="advice">Change: {escape(cause.change)}.</span>'
    items = "".join(_item(number, finding, engine, group) for number, finding in group.findings)
    listed = f"<ol>{items}</ol>"
    if group.avoidable:
        return f"<section><p>{head}</p>{listed}</section>"
    return f"<details class=expected><summary>{head}</summary>{listed}</details>"


def _item(number: int, finding: Finding, engine: int, group: Group) -> str:
    link = _link("show", [node_id(engine, index) for index in finding.layers])
    word = "Change: " if finding.avoidable else ""
    advice = f'<br><span class="advice">{word}{escape(finding.advice)}.</span>' if finding.advice else ""
    return (
        f"<li value={number}><span class=cost>{cost([finding], group.timed)}</span>: {escape(finding.text)} {link}"
        f"{advice}</li>"
    )


def _table(rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """Rows of (label, cells), both HTML; a row without cells is a heading."""
    lines: list[str] = [f"<tr><th></th>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"]
    for label, cells in rows:
        first = f"<td>{label}</td>" if cells else f"<th colspan={len(names) + 1}>{label}</th>"
        lines.append(f"<tr>{first}{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _link(text: str, ids: Sequence[str]) -> str:
    return f'<a data-show="{" ".join(ids)}">{escape(text)}</a>'
