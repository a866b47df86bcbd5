"""Engines as pictures: the graph that Graphviz' ``dot`` lays out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Sequence
from xml.sax.saxutils import escape

from quantization.dot import literal, new_digraph
from quantization.inspector.names import block_of, shorten
from quantization.inspector.records import Layer, time_ms
from quantization.inspector.report import EngineReport
from quantization.inspector.topology import Edge, EngineGraph
from quantization.tables import Place

if TYPE_CHECKING:
    from graphviz import Digraph

KIND_COLORS = {
    "conv": "#1f4e79",
    "matmul": "#2e75b6",
    "pointwise": "#548235",
    "pooling": "#7f6000",
    "resize": "#806000",
    "concat": "#7030a0",
    "shuffle": "#595959",
    "reformat": "#c55a11",
    "quantize": "#c55a11",
    "no-op": "#808080",
    "constant": "#808080",
    "myelin": "#3b3838",
    "other": "#404040",
}
PRECISION_COLORS = {
    "Int8": "#d5f0d5",
    "FP8": "#c9ead0",
    "FP16": "#fff1c2",
    "BF16": "#fde9d0",
    "FP32": "#f9d0d0",
    "other": "#ececec",
}
EDGE_COLORS = {
    "Int8": "#2e7d32",
    "FP8": "#2e7d32",
    "FP16": "#b07d00",
    "BF16": "#b05a00",
    "FP32": "#c62828",
    "other": "#555555",
}
ALARM = "#e00000"
MARK = "#0b57d0"
_FONT = "Arial"


def engine_dot(report: EngineReport, notes: bool = True) -> Digraph:
    """One engine, or two side by side, with corresponding layers at one height.

    Constants, and copies of nothing but constants, are left out; the heading gives their number and time.

    Args:
        report: its findings mark the layers.
        notes: put the most costly findings under the heading, for a drawing that has no report above it.

    Raises:
        UserError: the Python package graphviz is not installed.
    """
    dot = new_digraph("engine")
    lines = _notes(report) if notes else []
    dot.attr("graph", fontname=_FONT, fontsize="14", labelloc="t", newrank="true", ranksep="0.25", nodesep="0.3")
    dot.attr("graph", label=f"<{_heading(report.graphs, lines)}>")
    dot.attr("node", fontname=_FONT, fontsize="11", shape="plain")
    dot.attr("edge", fontname=_FONT, fontsize="9", arrowsize="0.6")
    for engine, graph in enumerate(report.graphs):
        if len(report.graphs) > 1:
            with dot.subgraph(name=f"cluster_{engine}") as cluster:
                _label_cluster(cluster, graph.engine.name, 24)
                _draw_engine(cluster, graph, engine, report.marks)
        else:
            _draw_engine(dot, graph, engine, report.marks)
    for first, second in report.aligned:
        with dot.subgraph() as level:
            level.attr(rank="same")
            level.node(node_id((0, first)))
            level.node(node_id((1, second)))
    return dot


def node_id(place: Place) -> str:
    """The id of a layer's node in the SVG."""
    return f"e{place[0]}_{place[1]}"


def _notes(report: EngineReport) -> list[str]:
    """The most costly avoidable causes of the first section."""
    groups = [group for section in report.sections[:1] for group in section.groups if group.avoidable]
    lines = []
    for group in groups[:3]:
        lines += textwrap.wrap(f"{group.heading}: {group.cause.why}", 200)
        lines += textwrap.wrap(f"first of them: {group.items[0].finding.text}", 200)
    return [report.sections[0].heading, *lines] if lines else []


def _draw_engine(dot: Digraph, graph: EngineGraph, engine: int, marks: dict[Place, int]) -> None:
    blocks: dict[str, list[Layer]] = {}
    for layer in graph.active():
        blocks.setdefault("" if layer.is_reformat else block_of(layer.nodes), []).append(layer)
    for number, (block, layers) in enumerate(blocks.items()):
        if block:
            with dot.subgraph(name=f"cluster_{engine}_{number}") as cluster:
                _label_cluster(cluster, block, 14)
                for layer in layers:
                    _draw_layer(cluster, graph, (engine, layer.index), marks)
        else:
            for layer in layers:
                _draw_layer(dot, graph, (engine, layer.index), marks)
    ends = sorted(
        {(edge.tensor.name, edge.source is None) for edge in graph.edges if edge.source is None or edge.target is None}
    )
    end_ids = {end: f"e{engine}_end{number}" for number, end in enumerate(ends)}
    for (name, _), identity in end_ids.items():
        dot.node(identity, literal(shorten(name)), shape="box", style="rounded")
    for edge in graph.edges:
        if edge.source not in graph.constant and edge.target not in graph.constant:
            _draw_edge(dot, edge, engine, end_ids)


def _label_cluster(cluster: Digraph, label: str, size: int) -> None:
    cluster.attr(label=literal(label), labeljust="l", fontsize=str(size), style="dashed", color="#999999")


def _draw_layer(dot: Digraph, graph: EngineGraph, place: Place, marks: dict[Place, int]) -> None:
    layer, name = graph.layers[place[1]], node_id(place)
    foot = [] if layer.is_reformat else [layer.precision]
    if layer.time_ms is not None:
        share = 100 * layer.time_ms / graph.engine.total_ms if graph.engine.total_ms else 0.0
        foot.append(f"{1000 * layer.time_ms:.1f} us, {share:.1f} %")
    lines = [escape(line) for line in (layer.title, "   ".join(foot)) if line]
    mark = f"finding {marks[place]}" if place in marks else ""
    dot.node(name, layer_box(layer, lines, mark), id=name, tooltip=literal(shorten(layer.name, 300)))


def layer_box(layer: Layer, lines: Sequence[str], mark: str = "") -> str:
    """The label of a layer's node: its head, on the ground of its precision, framed if it changes the type.

    Args:
        layer: gives colours and head.
        lines: HTML-like text of Graphviz, already escaped, below the head.
        mark: text in a blue row at the foot; empty for none.
    """
    cells = [
        f'<TR><TD BGCOLOR="{KIND_COLORS[layer.kind]}"><FONT COLOR="white"><B>{escape(_head(layer))}</B></FONT></TD></TR>',
        *(f"<TR><TD>{line}</TD></TR>" for line in lines),
    ]
    if mark:
        cells.append(f'<TR><TD BGCOLOR="{MARK}"><FONT COLOR="white"><B>{escape(mark)}</B></FONT></TD></TR>')
    border = f'BORDER="4" COLOR="{ALARM}"' if layer.type_change else 'BORDER="1" COLOR="#555555"'
    color = PRECISION_COLORS[layer.precision]
    table = f'{border} CELLBORDER="0" CELLSPACING="0" CELLPADDING="4" BGCOLOR="{color}"'
    return f"<<TABLE {table}>{''.join(cells)}</TABLE>>"


def _head(layer: Layer) -> str:
    """``conv``, ``reformat QDQ FP16 to Int8``."""
    parts = [layer.kind]
    if layer.is_reformat and layer.origin != "REFORMAT":
        parts.append(layer.reason)
    return " ".join([*parts, *([" to ".join(layer.type_change)] if layer.type_change else [])])


def _draw_edge(dot: Digraph, edge: Edge, engine: int, ends: dict[tuple[str, bool], str]) -> None:
    source = ends[edge.tensor.name, True] if edge.source is None else node_id((engine, edge.source))
    target = ends[edge.tensor.name, False] if edge.target is None else node_id((engine, edge.target))
    color = EDGE_COLORS.get(edge.tensor.datatype, EDGE_COLORS["other"])
    dot.edge(
        source,
        target,
        label=f"<&#160;{escape(str(edge.tensor))}>",
        color=color,
        fontcolor=color,
        penwidth="3" if edge.part else "1",
        tooltip=literal(shorten(edge.tensor.name, 300)),
    )


def _heading(graphs: Sequence[EngineGraph], notes: Sequence[str]) -> str:
    """What the engines are, and the legend."""
    rows = []
    for graph in graphs:
        time = f", {graph.engine.total_ms:.3f} ms in all layers" if graph.engine.timed else ", no profile"
        rows.append(f"<B>{escape(graph.engine.name)} </B>:  {len(graph.layers)} layers{time}{_hidden(graph)}")
    rows += [f'<FONT COLOR="{MARK}">{escape(note)} </FONT>' for note in notes]
    drawn = [layer for graph in graphs for layer in graph.active()]
    kinds, precisions = sorted({layer.kind for layer in drawn}), sorted({layer.precision for layer in drawn})
    legend = [f'<TD BGCOLOR="{KIND_COLORS[name]}"><FONT COLOR="white">{name}</FONT></TD>' for name in kinds]
    legend += [f'<TD BGCOLOR="{PRECISION_COLORS[name]}">{name}</TD>' for name in precisions]
    legend.append(f'<TD BORDER="4" COLOR="{ALARM}">Reformat that changes type</TD>')
    legend.append("<TD>edges in the colour of their type; thick: a part of a Concat</TD>")
    width = len(legend)
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="4" CELLPADDING="4">'
        + "".join(f'<TR><TD COLSPAN="{width}" ALIGN="LEFT">{row}</TD></TR>' for row in rows)
        + f"<TR>{''.join(legend)}</TR></TABLE>"
    )


def _hidden(graph: EngineGraph) -> str:
    if not graph.constant:
        return ""
    time = time_ms([graph.layers[index] for index in graph.constant])
    return f", {len(graph.constant)} of them ({time:.3f} ms) only hold or copy constants and are not drawn"
