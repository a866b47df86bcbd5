"""Preflight: check a Q/DQ ONNX and predict what TensorRT makes of it, without TensorRT.

Needs onnx and numpy only, so that it runs where an engine is built. ``scripts/check-onnx.py`` is its command line.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from quantization.errors import UserError
from quantization.onnx_graph.graph import attribute
from quantization.preflight.checks import (
    check_activations,
    check_duplicates,
    check_float_layers,
    check_outputs,
    check_scales,
    check_stem,
)
from quantization.preflight.conversions import check_conversions
from quantization.preflight.findings import SEVERITIES, Finding, Subject
from quantization.preflight.propagation import Propagation, tensor_classes
from quantization.preflight.qdq_graph import CONVOLUTIONS, WEIGHTED, QdqGraph

CHECKS = (
    check_scales,
    check_conversions,
    check_float_layers,
    check_stem,
    check_activations,
    check_duplicates,
    check_outputs,
)
KNOWN_Q = ("mixed-readers", "float-producer")  # known findings whose kernels are Qs
IMAGE_CHANNELS = 4  # at most: RGB, or with alpha


@dataclass
class Report:
    """What the preflight found.

    Attributes:
        findings: failures first, then warnings, then known facts; each the most costly first.
        layers: number of convolutions and matrix products with constant weights.
        int8_layers: those that run in INT8.
        macs: multiply-accumulates of these layers for one image.
        int8_macs: those in INT8.
        uncounted: number of layers whose shapes inference does not find; they are in neither.
        separate_q: predicted Q kernels: "image", "known" and "avoidable".
        type_changing: predicted Reformats between INT8 and float, Q kernels included.
        requantize: predicted Reformats from INT8 to INT8 in another scale.
        groups: the scale groups: layers that read, through Q/DQ, tensors that must have one scale.
    """

    findings: list[Finding]
    layers: int
    int8_layers: int
    macs: int
    int8_macs: int
    uncounted: int
    separate_q: dict[str, int]
    type_changing: int
    requantize: int
    groups: list[list[str]]

    @property
    def passed(self) -> bool:
        return all(finding.severity != "fail" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, **asdict(self)}


def load_onnx(file: str) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        UserError: it is missing, or no ONNX.
    """
    if not Path(file).is_file():
        raise UserError(f"ONNX file {file} does not exist")
    try:
        model = onnx.load(file)
    except (DecodeError, ValueError) as error:
        raise UserError(f"{file} is no ONNX: give the file that export wrote") from error
    except OSError as error:
        raise UserError(
            f"{file}: its weights cannot be read ({error}); keep the external data file beside it"
        ) from error
    if not model.graph.node:
        raise UserError(f"{file} is no ONNX with a graph: give the file that export wrote")
    return model


def preflight(model: onnx.ModelProto, ignore: Sequence[str] | None = None) -> Report:
    """Check a Q/DQ ONNX and predict the conversions that TensorRT inserts.

    Args:
        model: the ONNX; unchanged.
        ignore: regular expressions for whole paths of layers that were left in float on purpose, with all layers below
            them; the head's convolutions, those without another between them and a graph output, and one with a stride
            that reads the image always may be.

    Raises:
        UserError: there is no Q/DQ in it, or a pattern is no regular expression.
    """
    check_has_pairs(model)
    subject = make_subject(QdqGraph(model), ignore or [])
    graph, propagation = subject.graph, subject.propagation
    findings = [finding for check in CHECKS for finding in check(subject)]
    findings.sort(
        key=lambda item: (SEVERITIES.index(item.severity), item.check != "scales", -item.elements, -item.kernels)
    )
    weighted = [position for position in range(len(graph.nodes)) if graph.weight(position) is not None]
    macs = {position: count_macs(graph, position) for position in weighted}
    kinds = Counter(item.kind for item in propagation.conversions)
    image = sum(item.reason == "image" for item in propagation.conversions)
    known = sum(item.kernels for item in findings if item.severity == "known" and item.check in KNOWN_Q)
    return Report(
        findings,
        len(weighted),
        len(propagation.quantized & set(weighted)),
        sum(count or 0 for count in macs.values()),
        sum(macs[position] or 0 for position in weighted if position in propagation.quantized),
        sum(count is None for count in macs.values()),
        {"image": image, "known": known, "avoidable": kinds["quantize"] - image - known},
        kinds["quantize"] + kinds["dequantize"],
        kinds["requantize"],
        scale_groups(graph),
    )


def make_subject(graph: QdqGraph, ignore: Sequence[str] = ()) -> Subject:
    """What the checks look at; ``ignore`` as for ``preflight``."""
    return Subject(
        graph, Propagation(graph), head_convolutions(graph), stem_convolutions(graph), matching(graph, ignore)
    )


def check_has_pairs(model: onnx.ModelProto) -> None:
    """Raises a UserError if there is nothing to check."""
    operators = Counter(node.op_type for node in model.graph.node)
    integer = [name for name in operators if name.startswith("QLinear") or name in ("ConvInteger", "MatMulInteger")]
    if integer:
        raise UserError(
            f"the ONNX has {integer[0]} operators, which TensorRT does not read: quantize with Q/DQ (ONNX "
            "Runtime: quant_format=QuantFormat.QDQ)"
        )
    if not operators["DequantizeLinear"]:
        raise UserError(
            "the ONNX has no QuantizeLinear and DequantizeLinear: it is a float one; export the checkpoint "
            "that quantize wrote (--ptq or --qat), and check that"
        )


def matching(graph: QdqGraph, patterns: Sequence[str]) -> set[int]:
    """Layers whose path, or the path of a module above them, matches one of the patterns."""
    try:
        expressions = [re.compile(rf"(?:{pattern})(?:\..*)?") for pattern in patterns]
    except re.error as error:
        raise UserError(f"--ignore {' '.join(patterns)} holds no regular expression: {error}") from error
    return {
        position
        for position, node in enumerate(graph.nodes)
        if node.op_type in WEIGHTED and any(expression.fullmatch(graph.layer(position)) for expression in expressions)
    }


def head_convolutions(graph: QdqGraph) -> set[int]:
    """Convolutions and linear layers whose outputs reach a graph output without passing another one."""
    found: set[int] = set()
    seen: set[int] = set()
    pending = [read.tensor for read in graph.outputs]
    while pending:
        position = graph.producer.get(pending.pop(), -1)
        if position < 0 or position in seen:
            continue
        seen.add(position)
        if graph.nodes[position].op_type in CONVOLUTIONS or graph.weight(position) is not None:
            found.add(position)
        else:
            pending += [read.tensor for read in graph.reads[position]]
    return found


def stem_convolutions(graph: QdqGraph) -> set[int]:
    """Convolutions with a stride that read the image itself, not a rearrangement of it."""
    return {
        read.node
        for name in graph.inputs
        for read in graph.readers.get(name, [])
        if read.node >= 0
        and graph.nodes[read.node].op_type == "Conv"
        and max(attribute(graph.nodes[read.node], "strides", [1])) > 1
        and (graph.weight_shape(read.node) or [0, 99])[1] <= IMAGE_CHANNELS
    }


def count_macs(graph: QdqGraph, position: int) -> int | None:
    """Multiply-accumulates of a layer with a constant weight; None if a shape is unknown."""
    node, weight = graph.nodes[position], graph.weight_shape(position)
    output = graph.elements(node.output[0])
    if not weight or not output:
        return None
    if node.op_type == "Conv":
        return output * int(np.prod(weight[1:]))  # (O, I / groups, kH, kW)
    if node.op_type == "ConvTranspose":
        return graph.elements(graph.reads[position][0].tensor) * int(np.prod(weight[1:])) or None
    return output * weight[1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else -2]


def scale_groups(graph: QdqGraph) -> list[list[str]]:
    """Layers whose Q/DQ reads tensors joined by operations that commute; groups of one left out."""
    classes = tensor_classes(graph)
    groups: dict[str, dict[str, None]] = {}
    for position, reads in enumerate(graph.reads):
        for read in reads:
            if read.pairs:
                groups.setdefault(classes.get(read.tensor, read.tensor), {})[graph.layer(position)] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def report_text(report: Report) -> str:
    """The report for people: a summary, then a line and a ``change:`` line for each finding."""
    count = Counter(finding.severity for finding in report.findings)
    q = report.separate_q
    share = f"{100 * report.int8_macs / report.macs:.1f} % of MACs" if report.macs else "share of MACs unknown"
    if report.macs and report.uncounted:
        share += f" (without {report.uncounted} layers of unknown shape)"
    lines = [
        f"Preflight {'passed' if report.passed else 'FAILED'}: {count['fail']} to mend, {count['warn']} warnings, "
        f"{count['known']} known",
        f"  INT8: {report.int8_layers} of {report.layers} layers, {share}; {len(report.groups)} scale groups",
        f"  Predicted: {sum(q.values())} separate Q kernels ({q['image']} image, {q['known']} known, "
        f"{q['avoidable']} avoidable), {report.type_changing} Reformats that change type, {report.requantize} "
        "between scales",
    ]
    for finding in report.findings:
        lines += [f"{finding.severity.upper():5} {finding.check}: {finding.what}", f"      change: {finding.change}"]
    return "\n".join(lines)
