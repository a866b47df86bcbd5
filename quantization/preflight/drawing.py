"""A Q/DQ ONNX as a picture: one colour a scale group, predicted conversions in red."""

from __future__ import annotations

import colorsys
from xml.sax.saxutils import escape

import onnx

from quantization.preflight.propagation import POINTWISE, tensor_classes
from quantization.preflight.qdq_graph import QdqGraph, Read
from quantization.preflight.report import check_has_pairs, make_subject

FLOAT_COLOR, LONE_COLOR, ALARM = "#8c8c8c", "#37474f", "#e00000"
_GOLDEN = 0.618034  # steps of the golden ratio keep neighbouring hues apart, however many there are


class Drawing:
    """The parts of one picture.

    Layers with their activations are one box, the decode behind the head is one box. A box has the colour of the group
    of what it reads, an edge that of the tensor that it carries.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        check_has_pairs(model)
        self.graph = QdqGraph(model)
        self.subject = make_subject(self.graph)
        self.propagation = self.subject.propagation
        self.classes = tensor_classes(self.graph)
        self.groups = self._number_groups()
        self.boxes = self._merge_activations()

    def _number_groups(self) -> dict[str, int]:
        """Class of tensors to a number from 1, for classes that more than one layer reads through Q/DQ."""
        readers: dict[str, set] = {}
        for position, reads in enumerate(self.graph.reads):
            for read in reads:
                if read.pairs:
                    readers.setdefault(self.classes.get(read.tensor, read.tensor), set()).add(position)
        return {
            name: number
            for number, name in enumerate((name for name, positions in readers.items() if len(positions) > 1), 1)
        }

    def _merge_activations(self) -> list[str]:
        """The box of each layer: its own, that of the convolution whose activation it is, or the decode."""
        heads = {f"box{position}" for position in self.subject.head}
        boxes: list[str] = []
        for position, node in enumerate(self.graph.nodes):
            before = {
                boxes[self.graph.producer[read.tensor]] if read.tensor in self.graph.producer else read.tensor
                for read in self.graph.reads[position]
            }
            follows = (
                node.op_type in POINTWISE
                and len(before) == 1
                and before <= set(boxes) - heads - {"decode"}
                and not any(read.pairs for read in self.graph.reads[position])
            )
            if follows:
                boxes.append(before.pop())
            elif position in self.subject.tail and position not in self.subject.head:
                boxes.append("decode")
            else:
                boxes.append(f"box{position}")
        return boxes

    def color(self, tensor: str) -> str:
        """Colour of the group of a tensor in INT8."""
        number = self.groups.get(self.classes.get(tensor, tensor))
        if number is None:
            return LONE_COLOR
        hue = (number * _GOLDEN) % 1.0
        return "#{:02x}{:02x}{:02x}".format(*tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.38, 0.85)))

    def box_lines(self) -> list[str]:
        lines = []
        for position, node in enumerate(self.graph.nodes):
            if self.boxes[position] != f"box{position}":
                continue
            read = self.graph.reads[position][0]
            int8 = position in self.propagation.quantized or all(
                self.propagation.form(each) is not None for each in self.graph.reads[position]
            )
            group = self.groups.get(self.classes.get(read.tensor, read.tensor)) if int8 else None
            name = self.graph.layer(position)
            label = name if name.endswith(node.op_type) else f"{name}\\n{node.op_type}"
            label += f"\\ngroup {group}" if group else "" if int8 else "\\nfloat"
            fill = self.color(read.tensor) if int8 else FLOAT_COLOR
            lines.append(f'box{position} [label="{escape(label)}" fillcolor="{fill}"]')
        return lines

    def edge_lines(self) -> list[str]:
        """Edges; a conversion is a red box on its way."""
        drawn: dict[tuple[str, str], str] = {}
        conversions: dict[str, str] = {}
        for reads in self.graph.reads:
            for read in reads:
                source, target = self._source(read.tensor), self.boxes[read.node]
                if source == target:
                    continue
                form = self.propagation.form(read)
                color = self.color(read.tensor) if form is not None else FLOAT_COLOR
                for number in self._conversions(read):
                    item, box = self.propagation.conversions[number], f"conversion{number}"
                    conversions[box] = {"quantize": "Q", "dequantize": "DQ", "requantize": "Q to Q"}[item.kind]
                    drawn[source, box] = ALARM
                    source = box
                drawn[source, target] = color
        lines = [f'{box} [label="{text}" shape=diamond fillcolor="{ALARM}"]' for box, text in conversions.items()]
        return lines + [
            f'{_quoted(source)} -> {_quoted(target)} [color="{color}"]' for (source, target), color in drawn.items()
        ]

    def _source(self, tensor: str) -> str:
        position: int | None = self.graph.producer.get(tensor)
        return tensor if position is None else self.boxes[position]

    def _conversions(self, read: Read) -> list[int]:
        """Numbers of the conversions on the way of one read."""
        found = []
        for number, item in enumerate(self.propagation.conversions):
            if item.tensor != read.tensor:
                continue
            wanted = item.scale in (self.propagation.demands[read], *(pair.key for pair in read.pairs))
            if (
                (item.kind == "quantize" and wanted)
                or (item.kind == "requantize" and (wanted or read.node in item.readers))
                or (item.kind == "dequantize" and read.node in item.readers)
            ):
                found.append(number)
        return found


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_dot(model: onnx.ModelProto) -> str:
    """DOT text of a Q/DQ ONNX.

    Raises:
        UserError: there is no Q/DQ in it.
    """
    drawing = Drawing(model)
    head = (
        f"{len(drawing.groups)} scale groups, one colour each; dark grey: INT8, read by one layer; light grey: float; "
        f"red: {len(drawing.propagation.conversions)} predicted conversions"
    )
    lines = [
        "digraph qdq {",
        f'graph [fontname="Arial" fontsize=16 labelloc=t ranksep=0.3 label="{head}"]',
        'node [fontname="Arial" fontsize=11 fontcolor=white shape=box style="filled,rounded"]',
        "edge [arrowsize=0.6 penwidth=2]",
        f'decode [fillcolor="{FLOAT_COLOR}"]',
    ]
    lines += [f'{_quoted(name)} [fillcolor="{FLOAT_COLOR}"]' for name in drawing.graph.inputs]
    return "\n".join([*lines, *drawing.box_lines(), *drawing.edge_lines(), "}"]) + "\n"
