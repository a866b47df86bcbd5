"""One place of a network in several engines, side by side: a few boxes each, in the colours of the inspector's drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, NamedTuple, Sequence
from xml.sax.saxutils import escape

import bundle  # noqa: F401  # puts quantization on the import path

from quantization.dot import literal, new_digraph
from quantization.errors import UserError
from quantization.inspector.drawing import EDGE_COLORS, layer_box
from quantization.inspector.names import module_of
from quantization.inspector.records import Layer, time_ms
from quantization.inspector.topology import EngineGraph, is_reformat

if TYPE_CHECKING:
    from graphviz import Digraph

_FONT = "DejaVu Sans,Verdana,sans-serif"  # two of one width, so that text fits its box wherever it is read
_TEXT = "#222222"
_WIDTH = 9.3  # inches of 96 pixels
_LEGEND = (
    "Boxes and lines: green INT8, yellow or brown FP16, red FP32. Red frame: a Reformat that changes the type.",
    "Times of single layers, from the profile.",
)


@dataclass(frozen=True)
class Story:
    """A place that is drawn.

    Attributes:
        name: of the file.
        heading: what is to be seen.
        net: folder of the engines' files.
        engines: name of each engine's files to its title, from left to right.
        modules: upstream modules whose layers are drawn; a module stands for those below it, too.
        before: what writes their input.
        after: what reads their output; empty: not drawn.
    """

    name: str
    heading: str
    net: str
    engines: dict[str, str]
    modules: Sequence[str]
    before: str
    after: str = ""


class Link(NamedTuple):
    """A tensor between two boxes; None for what stands outside."""

    source: int | None
    target: int | None
    datatype: str


@dataclass(frozen=True)
class Excerpt:
    """Some layers of an engine.

    Attributes:
        layers: by index in the engine.
        links: between them, and from and to the outside.
    """

    layers: dict[int, Layer]
    links: Sequence[Link]


def excerpt(graph: EngineGraph, modules: Sequence[str]) -> Excerpt:
    """The layers of some modules, and the Reformats of what these write, or of the image that they read.

    Raises:
        UserError: the engine has no layer of one of the modules.
    """
    active = graph.active()
    computing = {
        layer.index: layer
        for layer in active
        if not layer.is_reformat and any(_lies_in(node, module) for node in layer.nodes for module in modules)
    }
    for module in modules:
        if not any(_lies_in(node, module) for layer in computing.values() for node in layer.nodes):
            raise UserError(f"{graph.engine.name} has no layer of {module}: give the files of the network in question")
    layers = dict(computing)
    for layer in active:
        if layer.is_reformat:
            near = graph.follow(layer, is_reformat, back=True) or graph.follow(layer, is_reformat)
            if any(each.index in computing for each in near):
                layers[layer.index] = layer
    return Excerpt(dict(sorted(layers.items())), list(dict.fromkeys(_links(graph, layers))))


def _lies_in(node: str, module: str) -> bool:
    return f"{module_of(node)}.".startswith(f"{module}.")


def _links(graph: EngineGraph, layers: dict[int, Layer]) -> Iterator[Link]:
    for edge in graph.edges:
        source = edge.source if edge.source in layers else None
        target = edge.target if edge.target in layers else None
        if (source is not None or target is not None) and edge.source not in graph.constant:
            yield Link(source, target, edge.tensor.datatype)


def story_dot(story: Story, graphs: Sequence[EngineGraph], conditions: str) -> Digraph:
    """The engines of a story; the more an engine computes in turn, the longer its column.

    Args:
        story: what is drawn.
        graphs: its engines, with times, in the order of ``story.engines``.
        conditions: of the measurement: a line under the heading.

    Raises:
        UserError: a module is missing, or the Python package graphviz.
    """
    dot = new_digraph(story.name)
    rows = [f'<FONT POINT-SIZE="16"><B>{escape(story.heading)}</B></FONT>', escape(conditions), *map(escape, _LEGEND)]
    dot.attr("graph", fontname=_FONT, fontsize="11", fontcolor=_TEXT, labelloc="t", bgcolor="white", pad="0.15")
    dot.attr("graph", label=_table(rows), newrank="true", ranksep="0.3", nodesep="0.12", size=f"{_WIDTH},40")
    dot.attr("node", fontname=_FONT, fontsize="11", fontcolor=_TEXT, shape="plain")
    dot.attr("edge", arrowsize="0.6")
    for number, (graph, title) in enumerate(zip(graphs, story.engines.values())):
        part = excerpt(graph, story.modules)
        with dot.subgraph(name=f"cluster_{number}") as cluster:
            total = 1000 * time_ms(list(part.layers.values()))
            label = _table(
                [f'<FONT POINT-SIZE="14"><B>{escape(title)}</B></FONT>', f"these boxes: <B>{total:.0f} us</B>"]
            )
            cluster.attr(label=label, style="solid", color="#bbbbbb", fontcolor=_TEXT, fontsize="12", margin="18")
            _draw_excerpt(cluster, story, part, f"e{number}")
    return dot


def _table(rows: Sequence[str]) -> str:
    """Lines of text as a label; in a table they are less dense."""
    lines = "".join(f"<TR><TD>{row}</TD></TR>" for row in rows)
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="2">{lines}</TABLE>>'


def _draw_excerpt(cluster: Digraph, story: Story, part: Excerpt, prefix: str) -> None:
    for index, layer in part.layers.items():
        time = f"<B>{1000 * layer.time_ms:.0f} us</B>" if layer.time_ms is not None else ""
        lines = [line for line in (escape(box_text(layer)), time) if line]
        cluster.node(f"{prefix}_{index}", layer_box(layer, lines), tooltip=literal(layer.name))
    ends = {"before": story.before, "after": story.after}
    used = {"before" if link.source is None else "after" for link in part.links if None in link[:2]}
    for end in sorted(used):
        if ends[end]:
            cluster.node(f"{prefix}_{end}", literal(ends[end]), shape="plaintext", height="0.25", fontcolor="#555555")
    for link in part.links:
        source = "before" if link.source is None else link.source
        target = "after" if link.target is None else link.target
        if (source != "before" or story.before) and (target != "after" or story.after):
            color = EDGE_COLORS.get(link.datatype, EDGE_COLORS["other"])
            cluster.edge(f"{prefix}_{source}", f"{prefix}_{target}", color=color, penwidth="1.5")


def box_text(layer: Layer) -> str:
    """The layer's title; the two formats of a Reformat that is neither Q nor DQ nor a Concat's copy."""
    if layer.is_reformat and layer.reason == "REFORMAT" and layer.inputs and layer.outputs:
        return f"{layer.inputs[0].format} to {layer.outputs[0].format}"
    return layer.title
