"""Engines as pictures: DOT text, laid out by Graphviz' ``dot``."""

from __future__ import annotations

import subprocess
from typing import Sequence
from xml.sax.saxutils import escape

from quantization.errors import UserError
from quantization.inspector.classify import is_reformat, kind, origin, precision, type_change
from quantization.inspector.layers import Layer
from quantization.inspector.names import block_of, onnx_nodes, shorten, title
from quantization.inspector.topology import Edge, EngineGraph

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
_LIMIT_S = 300


def to_dot(
    graphs: Sequence[EngineGraph],
    aligned: Sequence[tuple[int, int]] = (),
    marks: dict[str, int] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """DOT text of one engine, or of two side by side.

    Constants, and copies of nothing but constants, are left out; the heading gives their number and time.

    Args:
        graphs: one or two engines.
        aligned: (layer of the first, layer of the second) that belong on one height.
        marks: numbers of findings by ``node_id``, to be shown in the nodes.
        notes: lines of text under the heading.
    """
    lines = [
        "digraph engine {",
        f'graph [fontname="{_FONT}" fontsize=14 labelloc=t newrank=true ranksep=0.25 nodesep=0.3 '
        f"label=<{_heading(graphs, notes)}>]",
        f'node [fontname="{_FONT}" fontsize=11 shape=plain]',
        f'edge [fontname="{_FONT}" fontsize=9 arrowsize=0.6]',
    ]
    for engine, graph in enumerate(graphs):
        body = _engine(graph, engine, marks or {})
        if len(graphs) > 1:
            body = _cluster(f"{engine}", graph.engine.name, 24, body)
        lines += body
    lines += [f"{{rank=same; e0_{first}; e1_{second}}}" for first, second in aligned]
    return "\n".join([*lines, "}"]) + "\n"


def render(dot: str, file_format: str) -> bytes:
    """Lay out and draw.

    Args:
        file_format: ``svg`` or ``png``.

    Raises:
        UserError: Graphviz is not installed, fails, or takes longer than five minutes.
    """
    try:
        done = subprocess.run(
            ["dot", f"-T{file_format}"],
            input=dot.encode("utf-8"),
            capture_output=True,
            timeout=_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise UserError(
            "Graphviz' program dot is not on the PATH: apt-get install graphviz "
            "(or conda install graphviz, or brew install graphviz)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"dot did not lay out the engine within {_LIMIT_S} s: try a newer Graphviz") from error
    if done.returncode or not done.stdout:
        message = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        raise UserError(f"dot failed: {message[0] if message else f'exit code {done.returncode}'}")
    return done.stdout


def node_id(engine: int, index: int) -> str:
    """The id of a layer's node in the SVG."""
    return f"e{engine}_{index}"


def _engine(graph: EngineGraph, engine: int, marks: dict[str, int]) -> list[str]:
    lines: list[str] = []
    blocks: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        if layer.index not in graph.constant:
            blocks.setdefault("" if is_reformat(layer) else block_of(onnx_nodes(layer)), []).append(layer)
    for number, (block, layers) in enumerate(blocks.items()):
        nodes = [_node(graph, engine, layer, marks.get(node_id(engine, layer.index))) for layer in layers]
        if block:
            nodes = _cluster(f"{engine}_{number}", block, 14, nodes)
        lines += nodes
    ends = sorted(
        {(edge.tensor.name, edge.source is None) for edge in graph.edges if edge.source is None or edge.target is None}
    )
    for number, (name, _) in enumerate(ends):
        lines.append(f'e{engine}_end{number} [shape=box style=rounded label="{_quoted(shorten(name))} "]')
    end_ids = {end: f"e{engine}_end{number}" for number, end in enumerate(ends)}
    drawn = [edge for edge in graph.edges if edge.source not in graph.constant and edge.target not in graph.constant]
    return lines + [_edge(edge, engine, end_ids) for edge in drawn]


def _cluster(name: str, label: str, size: int, body: list[str]) -> list[str]:
    head = f'label="{_quoted(label)} " labeljust=l fontsize={size} style=dashed color="#999999"'
    return [f"subgraph cluster_{name} {{", head, *body, "}"]


def _node(graph: EngineGraph, engine: int, layer: Layer, mark: int | None) -> str:
    alarm = type_change(layer) is not None
    what = kind(layer)
    head = what if not is_reformat(layer) or layer.origin == "REFORMAT" else f"{what} {origin(layer)}"
    head = " ".join([head, *filter(None, [" to ".join(type_change(layer) or ())])])
    cells = [
        f'<TR><TD BGCOLOR="{KIND_COLORS[what]}"><FONT COLOR="white"><B>{escape(head)}</B></FONT></TD></TR>',
        f"<TR><TD>{escape(title(layer))}</TD></TR>",
    ]
    foot = [] if is_reformat(layer) else [precision(layer)]
    if layer.time_ms is not None:
        share = 100 * layer.time_ms / graph.engine.total_ms if graph.engine.total_ms else 0.0
        foot.append(f"{1000 * layer.time_ms:.1f} us, {share:.1f} %")
    if foot:
        cells.append(f"<TR><TD>{escape('   '.join(foot))}</TD></TR>")
    if mark is not None:
        cells.append(f'<TR><TD BGCOLOR="{MARK}"><FONT COLOR="white"><B>finding {mark}</B></FONT></TD></TR>')
    border = f'BORDER="4" COLOR="{ALARM}"' if alarm else 'BORDER="1" COLOR="#555555"'
    name = node_id(engine, layer.index)
    table = f'{border} CELLBORDER="0" CELLSPACING="0" CELLPADDING="4" BGCOLOR="{PRECISION_COLORS[precision(layer)]}"'
    return (
        f'{name} [id="{name}" tooltip="{_quoted(shorten(layer.name, 300))} " '
        f"label=<<TABLE {table}>{''.join(cells)}</TABLE>>]"
    )


def _edge(edge: Edge, engine: int, ends: dict[tuple[str, bool], str]) -> str:
    source = ends[edge.tensor.name, True] if edge.source is None else f"e{engine}_{edge.source}"
    target = ends[edge.tensor.name, False] if edge.target is None else f"e{engine}_{edge.target}"
    color = EDGE_COLORS.get(edge.tensor.datatype, EDGE_COLORS["other"])
    return (
        f'{source} -> {target} [label=<&#160;{escape(str(edge.tensor))}> color="{color}" fontcolor="{color}" '
        f'penwidth={3 if edge.part else 1} tooltip="{_quoted(shorten(edge.tensor.name, 300))} "]'
    )


def _quoted(text: str) -> str:
    """Text for a DOT string in double quotes: a backslash would begin an escape, an ampersand an entity."""
    return escape(text, {'"': "&quot;", "\\": "\\\\"})


def _heading(graphs: Sequence[EngineGraph], notes: Sequence[str]) -> str:
    """What the engines are, and the legend."""
    rows = []
    for graph in graphs:
        time = f", {graph.engine.total_ms:.3f} ms in all layers" if graph.engine.timed else ", no profile"
        rows.append(f"<B>{escape(graph.engine.name)} </B>:  {len(graph.layers)} layers{time}{_hidden(graph)}")
    rows += [f'<FONT COLOR="{MARK}">{escape(note)} </FONT>' for note in notes]
    drawn = [layer for graph in graphs for layer in graph.layers if layer.index not in graph.constant]
    kinds, precisions = sorted(set(map(kind, drawn))), sorted(set(map(precision, drawn)))
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
    time = sum(graph.layers[index].time_ms or 0.0 for index in graph.constant)
    return f", {len(graph.constant)} of them ({time:.3f} ms) only hold or copy constants and are not drawn"
