"""A Q/DQ ONNX as a picture: one colour per scale group, predicted conversions in red."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import onnx

from quantization.dot import literal, new_digraph
from quantization.preflight.groups import ScaleGroups
from quantization.preflight.operators import POINTWISE
from quantization.preflight.qdq_graph import QdqGraph, Read
from quantization.preflight.report import check_has_pairs
from quantization.preflight.subject import Subject

if TYPE_CHECKING:
    from graphviz import Digraph

FLOAT_COLOR, LONE_COLOR, ALARM = "#8c8c8c", "#37474f", "#e00000"
DECODE = "decode"
_LABELS = {"quantize": "Q", "dequantize": "DQ", "requantize": "Q to Q"}
_GOLDEN = 0.618034  # steps of the golden ratio keep neighbouring hues apart, however many there are


class Drawing:
    """The parts of one picture.

    Layers with their activations are one box, the decode behind the head is one box. A box has the colour of the group
    of what it reads, an edge that of the tensor that it carries.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        check_has_pairs(model)
        self.graph = QdqGraph(model)
        self.subject = Subject(self.graph)
        self.propagation = self.subject.propagation
        self.groups = ScaleGroups(self.graph)
        self.boxes = self._merge_activations()
        self._conversions: dict[str, list[int]] = {}  # of each tensor, numbers of its conversions
        for number, item in enumerate(self.propagation.conversions):
            self._conversions.setdefault(item.tensor, []).append(number)

    def _merge_activations(self) -> list[str]:
        """The box of each layer: its own, that of the convolution whose activation it is, or the decode."""
        boxes: list[str] = []
        takes: set[str] = set()  # boxes that take in the pointwise layers behind them
        for position, node in enumerate(self.graph.nodes):
            reads = self.graph.reads[position]
            before = {self._source(read.tensor, boxes) for read in reads}
            if (
                node.op_type in POINTWISE
                and len(before) == 1
                and before <= takes
                and not any(read.pairs for read in reads)
            ):
                boxes.append(before.pop())
            elif position in self.subject.tail and position not in self.subject.head:
                boxes.append(DECODE)
            else:
                boxes.append(f"box{position}")
                takes.update([] if position in self.subject.head else [boxes[-1]])
        return boxes

    def color(self, tensor: str) -> str:
        """Colour of the group of a tensor in INT8."""
        number = self.groups.number(tensor)
        if number is None:
            return LONE_COLOR
        hue = (number * _GOLDEN) % 1.0
        return "#{:02x}{:02x}{:02x}".format(*tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.38, 0.85)))

    def add_boxes(self, dot: Digraph) -> None:
        """A box for each layer that is not part of another one's."""
        for position, node in enumerate(self.graph.nodes):
            if self.boxes[position] != f"box{position}":
                continue
            reads = self.graph.reads[position]
            int8 = position in self.propagation.quantized or all(
                self.propagation.form(read) is not None for read in reads
            )
            group = self.groups.number(reads[0].tensor) if int8 else None
            lines = [self.graph.layer(position), node.op_type]
            lines += [f"group {group}"] if group else [] if int8 else ["float"]
            fill = self.color(reads[0].tensor) if int8 else FLOAT_COLOR
            dot.node(f"box{position}", label="\\n".join(map(literal, lines)), fillcolor=fill)

    def add_edges(self, dot: Digraph) -> None:
        """Edges; a conversion is a red box on its way."""
        drawn: dict[tuple[str, str], str] = {}
        conversions: dict[str, str] = {}
        for reads in self.graph.reads:
            for read in reads:
                source, target = self._source(read.tensor, self.boxes), self.boxes[read.node]
                if source == target:
                    continue
                for number in self._conversions_of(read):
                    box = f"conversion{number}"
                    conversions[box] = _LABELS[self.propagation.conversions[number].kind]
                    drawn[source, box] = ALARM
                    source = box
                is_int8 = self.propagation.form(read) is not None
                drawn[source, target] = self.color(read.tensor) if is_int8 else FLOAT_COLOR
        for box, label in conversions.items():
            dot.node(box, label=label, shape="diamond", fillcolor=ALARM)
        for (source, target), color in drawn.items():
            dot.edge(source, target, color=color)

    def _source(self, tensor: str, boxes: list[str]) -> str:
        """The box that a tensor comes from, or the input that it is."""
        position = self.graph.producer.get(tensor)
        return input_box(tensor) if position is None else boxes[position]

    def _conversions_of(self, read: Read) -> list[int]:
        """Numbers of the conversions on the way of one read."""
        found = []
        scales = (self.propagation.demands[read], *(pair.key for pair in read.pairs))
        for number in self._conversions.get(read.tensor, []):
            item = self.propagation.conversions[number]
            wanted = item.kind != "dequantize" and item.scale in scales
            named = item.kind != "quantize" and read.node in item.readers
            if wanted or named:
                found.append(number)
        return found


def input_box(tensor: str) -> str:
    """Name of the box of a graph input; no colon, which separates a port from a node in DOT."""
    return "input " + tensor.replace(":", "_")


def to_dot(model: onnx.ModelProto) -> str:
    """DOT text of a Q/DQ ONNX.

    Args:
        model: its nodes in topological order, as ``load_onnx`` leaves them.

    Raises:
        UserError: there is no Q/DQ in it.
    """
    drawing = Drawing(model)
    # two lines: a viewer's font may be wider than the one that the width of the picture was measured with
    head = (
        f"scale groups: {len(drawing.groups.members)}, one colour each; predicted conversions: "
        f"{len(drawing.propagation.conversions)}, red\ndark grey: INT8, read by one layer; light grey: float"
    )
    dot = new_digraph("qdq")
    dot.attr("graph", fontname="Arial", fontsize="16", labelloc="t", ranksep="0.3", label=head)
    dot.attr("node", fontname="Arial", fontsize="11", fontcolor="white", shape="box", style="filled,rounded")
    dot.attr("edge", arrowsize="0.6", penwidth="2")
    dot.node(DECODE, fillcolor=FLOAT_COLOR)
    for name in drawing.graph.inputs:
        dot.node(input_box(name), label=literal(name), fillcolor=FLOAT_COLOR)
    drawing.add_boxes(dot)
    drawing.add_edges(dot)
    return dot.source
