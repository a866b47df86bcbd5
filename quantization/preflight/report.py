"""Preflight: check a Q/DQ ONNX and predict what TensorRT makes of it, without TensorRT.

Needs onnx and numpy only, so that it runs where an engine is built. ``scripts/check-onnx.py`` is its command line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Callable

import numpy as np
import onnx

from quantization.errors import UserError
from quantization.onnx_graph.graph import attribute
from quantization.preflight.checks import check_duplicates, check_outputs
from quantization.preflight.conversions import check_conversions
from quantization.preflight.findings import SEVERITIES, Finding
from quantization.preflight.groups import ScaleGroups
from quantization.preflight.layer_checks import check_activations, check_float_layers, check_stem
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.scale_checks import check_scales
from quantization.preflight.strided_sums import check_strided_sums
from quantization.preflight.subject import Subject, nothing

CHECKS = (
    check_scales,
    check_conversions,
    check_float_layers,
    check_stem,
    check_activations,
    check_duplicates,
    check_outputs,
    check_strided_sums,
)
KNOWN_Q = ("mixed-readers", "float-producer")  # known findings whose kernels are Qs


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
    def failed(self) -> bool:
        """Whether a check failed: exit code 1."""
        return any(finding.severity == "fail" for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, **asdict(self)}


def preflight(model: onnx.ModelProto, is_float: Callable[[str], bool] = nothing) -> Report:
    """Check a Q/DQ ONNX and predict the conversions that TensorRT inserts.

    Args:
        model: the ONNX, its nodes in topological order (``load_onnx`` sorts them); unchanged.
        is_float: whether the layer of a module path was left in float on purpose, ``paths.__contains__`` for a set of
            them. The head's convolutions, those without another between them and a graph output, and one with a
            stride that reads the image always may be.

    Raises:
        UserError: there is no Q/DQ in it.
    """
    check_has_pairs(model)
    subject = Subject(QdqGraph(model), is_float)
    graph, conversions = subject.graph, subject.propagation.conversions
    findings = [finding for check in CHECKS for finding in check(subject)]
    findings.sort(
        key=lambda item: (SEVERITIES.index(item.severity), item.check != "scales", -item.elements, -item.kernels)
    )
    macs = {
        position: count_macs(graph, position)
        for position in range(len(graph.nodes))
        if graph.weight(position) is not None
    }
    quantized = subject.propagation.quantized & set(macs)
    kinds = Counter(item.kind for item in conversions)
    image = sum(item.reason == "image" for item in conversions)
    known = sum(item.kernels for item in findings if item.severity == "known" and item.check in KNOWN_Q)
    return Report(
        findings,
        layers=len(macs),
        int8_layers=len(quantized),
        macs=sum(count or 0 for count in macs.values()),
        int8_macs=sum(macs[position] or 0 for position in quantized),
        uncounted=sum(count is None for count in macs.values()),
        separate_q={"image": image, "known": known, "avoidable": kinds["quantize"] - image - known},
        type_changing=kinds["quantize"] + kinds["dequantize"],
        requantize=kinds["requantize"],
        groups=ScaleGroups(graph).members,
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


def report_text(report: Report) -> str:
    """The report for people: a summary, then a line and a ``change:`` line for each finding."""
    count = Counter(finding.severity for finding in report.findings)
    q = report.separate_q
    share = f"{100 * report.int8_macs / report.macs:.1f} % of MACs" if report.macs else "share of MACs unknown"
    if report.macs and report.uncounted:
        share += f" (without {report.uncounted} layers of unknown shape)"
    lines = [
        f"Preflight {'FAILED' if report.failed else 'passed'}: {_number(count['fail'], 'error')}, "
        f"{_number(count['warn'], 'warning')}, {count['known']} known",
        f"  INT8: {report.int8_layers} of {report.layers} layers, {share}; {len(report.groups)} scale groups",
        f"  Predicted: {_number(sum(q.values()), 'separate Q kernel')} ({q['image']} image, {q['known']} known, "
        f"{q['avoidable']} avoidable), {_number(report.type_changing, 'Reformat')} to another type, {report.requantize} "
        "to another scale",
    ]
    for finding in report.findings:
        lines += [f"{finding.severity.upper():5} {finding.check}: {finding.what}", f"      change: {finding.change}"]
    return "\n".join(lines)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
