"""The comparison in words: as text for the terminal, as a page with the drawing."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Dict, List, Sequence, Tuple

from quantization.engine.compare import Comparison
from quantization.engine.findings import Finding
from quantization.engine.graph_drawing import node_id
from quantization.engine.names import shorten
from quantization.engine.plots import overview
from quantization.engine.summary import Summary, Tally, as_text, summarise, table
from quantization.engine.topology import EngineGraph

_TEMPLATE = Path(__file__).with_name("viewer.html")


def page(drawing: bytes, graphs: Sequence[EngineGraph], report: str = "") -> str:
    """One self-contained HTML file: a report, the drawing to pan and zoom, and the record of every layer.

    Args:
        drawing: SVG from ``graph_drawing.render``.
        graphs: the engines in the drawing.
        report: HTML to put above it.
    """
    svg = drawing.decode("utf-8")
    records: Dict[str, object] = {}
    for engine, graph in enumerate(graphs):
        for layer in graph.layers:
            times = {} if layer.time_ms is None else {"time in ms (profile)": layer.time_ms}
            records[node_id(engine, layer.index)] = {**times, **layer.record, "Name": layer.name}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(" and ".join(graph.engine.name for graph in graphs)), report=report,
        drawing=svg[svg.index("<svg"):],
        records=json.dumps(records).replace("<", "\\u003c"))  # a name must not close the script element


def sections(comparison: Comparison) -> List[Tuple[str, int, List[Finding]]]:
    """(heading, engine that the layers belong to, findings), the findings that explain the difference first."""
    first, second = (graph.engine.name for graph in comparison.graphs)
    return [(f"In {second}, not in {first}", 1, comparison.only_second),
            (f"In {first}, not in {second}", 0, comparison.only_first),
            (f"In both (cost in {second})", 1, comparison.both)]


def findings_text(findings: Sequence[Finding], timed: bool) -> str:
    """Findings for a terminal; of those that every engine has, one line each."""
    lines = []
    for number, finding in enumerate(findings, 1):
        expected = "" if finding.avoidable else " (expected)"
        lines.append(f"{number:3d}. {_cost(finding, timed)}{expected}: {finding.text}")
        if finding.avoidable:
            lines.append(f"     Change: {finding.advice}.")
    return "\n".join(lines)


def headline(summaries: Sequence[Summary]) -> str:
    """The difference in one sentence: in sum, and by kind, the largest first."""
    first, second = summaries
    if not (first.timed and second.timed):
        return (f"{second.name} has {second.all.count} layers, {first.name} {first.all.count}; "
                "give both profiles to compare times.")
    extra = {name: second.kinds.get(name, Tally()).ms - first.kinds.get(name, Tally()).ms
             for name in dict.fromkeys([*first.kinds, *second.kinds])}
    largest = sorted(extra, key=lambda name: -abs(extra[name]))[:4]
    return (f"{second.name} takes {second.all.ms:.3f} ms in all layers, {first.name} {first.all.ms:.3f} ms. Difference "
            f"{_extra(second.all.ms - first.all.ms, summaries)}: "
            + ", ".join(f"{name} {_extra(extra[name], summaries)}" for name in largest) + ".")


def comparison_text(comparison: Comparison) -> str:
    """The report for a terminal."""
    summaries = [summarise(graph) for graph in comparison.graphs]
    names = [each.name for each in summaries]
    parts = [as_text(table(summaries), names), headline(summaries)]
    for heading, engine, findings in sections(comparison):
        if findings:
            parts.append(f"{heading}:\n{findings_text(findings, summaries[engine].timed)}")
    if comparison.fusions:
        rows = [(each.name, [shorten(each.describe(0)), shorten(each.describe(1)), _extra(each.extra_ms, summaries)])
                for each in comparison.fusions]
        parts.append("Fused differently:\n" + as_text(rows, [*names, "difference"]))
    return "\n\n".join(parts)


def comparison_html(comparison: Comparison) -> str:
    """The report for ``page``."""
    summaries = [summarise(graph) for graph in comparison.graphs]
    names = [each.name for each in summaries]
    parts = [f"<main><h1>{escape(names[1])} compared with {escape(names[0])}</h1>",
             f"<p>{escape(headline(summaries))}</p>"]
    for heading, engine, findings in sections(comparison):
        if findings:
            items = "".join(_item(finding, engine, summaries[engine].timed) for finding in findings)
            opened = "" if engine == 1 and findings is comparison.both else " open"
            parts.append(f"<details{opened}><summary><b>{escape(heading)}: {len(findings)} findings</b></summary>"
                         f"<ol>{items}</ol></details>")
    if comparison.fusions:
        rows = [(_link(each.name, [node_id(engine, layer.index) for engine in (1, 0) for layer in each.layers[engine]]),
                 [escape(each.describe(0)), escape(each.describe(1)), _extra(each.extra_ms, summaries)])
                for each in comparison.fusions]
        parts.append("<h2>Fused differently</h2>" + _table(rows, [*names, "difference"]))
    rows = [(escape(label), [escape(cell) for cell in cells]) for label, cells in table(summaries)]
    parts.append(f"<h2>In figures</h2><figure>{overview(summaries)}</figure>{_table(rows, names)}</main>")
    return "\n".join(parts)


def _table(rows: Sequence[Tuple[str, Sequence[str]]], names: Sequence[str]) -> str:
    """Rows of (label, cells), both HTML; a row without cells is a heading."""
    lines = [f"<tr><th></th>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"]
    for label, cells in rows:
        first = f"<td>{label}</td>" if cells else f"<th colspan={len(names) + 1}>{label}</th>"
        lines.append(f"<tr>{first}{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _item(finding: Finding, engine: int, timed: bool) -> str:
    link = _link("show", [node_id(engine, index) for index in finding.layers])
    state = "" if finding.avoidable else " class=expected"
    advice = f'<br><span class="advice">Change: {escape(finding.advice)}.</span>' if finding.avoidable else ""
    return f"<li{state}><span class=cost>{_cost(finding, timed)}</span>: {escape(finding.text)} {link}{advice}</li>"


def _link(text: str, ids: Sequence[str]) -> str:
    return f'<a data-show="{" ".join(ids)}">{escape(text)}</a>'


def _cost(finding: Finding, timed: bool) -> str:
    count = len(finding.layers)
    return f"{1000 * finding.cost_ms:.1f} us" if timed else f"{count} layer{'s' * (count > 1)}"


def _extra(ms: float, summaries: Sequence[Summary]) -> str:
    return f"{1000 * ms:+.1f} us" if all(each.timed for each in summaries) else ""
