"""Check the predicted conversions: where TensorRT inserts a kernel, why, and what to change."""

from __future__ import annotations

from typing import Callable

from quantization.onnx_graph.graph import attribute
from quantization.preflight.findings import Finding, some
from quantization.preflight.propagation import Conversion
from quantization.preflight.subject import Subject


def check_conversions(subject: Subject) -> list[Finding]:
    """One finding for each tensor that TensorRT converts, and for each kind of cause."""
    grouped: dict[tuple[str, str], list[Conversion]] = {}
    for conversion in subject.propagation.conversions:
        if not _is_told_elsewhere(subject, conversion):
            grouped.setdefault((conversion.tensor, conversion.reason), []).append(conversion)
    findings = []
    for (tensor, reason), conversions in grouped.items():
        finding = _EXPLANATIONS[reason](subject, tensor, conversions)
        finding.tensors, finding.kernels = [tensor], len(conversions)
        finding.elements = len(conversions) * subject.graph.elements(tensor)
        findings.append(finding)
    return findings


def _is_told_elsewhere(subject: Subject, conversion: Conversion) -> bool:
    """Conversions around a convolution that is float by mistake belong to the finding about that convolution."""
    if conversion.reason == "half quantized":
        return not subject.allowed.issuperset(conversion.readers)
    return conversion.reason == "float producer" and subject.float_maker(conversion.tensor) is not None


def _by_scale(subject: Subject, conversions: list[Conversion]) -> str:
    return "; ".join(f"{_number(item.scale)} by {some(subject.names(item.readers))}" for item in conversions)


def _number(scale: object) -> str:
    return f"{scale:.6g}" if isinstance(scale, float) else "a scale that is no single constant"


def _explain_two_scales(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    graph = subject.graph
    behind_concat = tensor in graph.producer and graph.nodes[graph.producer[tensor]].op_type == "Concat"
    readers = subject.names(position for item in conversions for position in item.readers)
    return Finding(
        "concat" if behind_concat else "two-scales",
        "fail",
        f"{graph.source(tensor)} is read with {len(conversions)} scales ({_by_scale(subject, conversions)}): "
        "it is emitted in float, and each scale is a Q kernel of its own",
        f"give {some(readers)} one quantizer (the rules of the quantize command do)",
        readers,
    )


def _explain_mixed_readers(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    graph, ends = subject.graph, subject.propagation.end_readers(tensor, None)
    quantized = subject.names(position for item in conversions for position in item.readers)
    names = subject.names(ends)
    line = (
        f"{graph.source(tensor)} is read in INT8 by {some(quantized)} and in float by {some(names)}: it is emitted "
        "in float, and a Q kernel follows"
    )
    if all(position in subject.tail or position in subject.allowed for position in ends):
        return Finding(
            "mixed-readers",
            "known",
            line,
            f"none needed; quantizing the input of {some(names)} too would save "
            "it, also if its weight stays float (of a detect convolution: --head shared)",
            quantized + names,
        )
    if all(interpolates(subject, position) for position in ends):
        change = "none needed: an interpolated value lies between the levels, so this one computes in float"
        return Finding("mixed-readers", "known", line, change, quantized + names)
    sums = [position for position in ends if position >= 0 and graph.nodes[position].op_type == "Add"]
    concats = [position for position in ends if position >= 0 and graph.nodes[position].op_type == "Concat"]
    change = (
        f"quantize both operands of {some(subject.names(sums))}, the other one with a quantizer of its own"
        if sums
        else f"give all quantizers behind {some(subject.names(concats))} one scale"
        if concats
        else f"quantize what {some(names)} reads in the same scale, or leave {some(quantized)} float"
    )
    return Finding("concat" if concats else "mixed-readers", "fail", line, change, quantized + names)


def interpolates(subject: Subject, position: int) -> bool:
    """Whether a node is a Resize or Upsample that computes new values; outputs have positions below zero."""
    node = subject.graph.nodes[position] if position >= 0 else None
    return (
        node is not None and node.op_type in ("Resize", "Upsample") and attribute(node, "mode", "nearest") != "nearest"
    )


def _explain_half_quantized(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    readers = subject.names(position for item in conversions for position in item.readers)
    return Finding(
        "float-weight",
        "known",
        f"{some(readers)} computes in float and reads {subject.graph.source(tensor)} in "
        "INT8: one Reformat, and the layer before emits INT8",
        "none needed",
        readers,
    )


def _explain_image(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    readers = subject.names(position for item in conversions for position in item.readers)
    return Finding(
        "image",
        "known",
        f"input {tensor} is quantized for {some(readers)} by a kernel of its own",
        "none needed",
        readers,
    )


def _explain_float_producer(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    readers = subject.names(position for item in conversions for position in item.readers)
    line = f"{subject.graph.source(tensor)} works in float and {some(readers)} reads it in INT8: a Q kernel"
    if subject.is_for_tensorrt_8 and _is_silu(subject, tensor):
        return Finding(
            "float-producer",
            "warn",
            f"{line}, and TensorRT 8.6 runs its convolution in FP32, fused with SiLU",
            "none for TensorRT 10 or newer; for 8, export without --target-tensorrt: SiLU is written with tanh there, which "
            "runs in FP16 without a Q kernel",
            readers,
        )
    return Finding("float-producer", "known", line, "none needed", readers)


def _is_silu(subject: Subject, tensor: str) -> bool:
    """Whether a tensor is x * sigmoid(x)."""
    graph = subject.graph
    product = graph.producer[tensor]
    factors = {read.tensor for read in graph.reads[product]}
    gates = [
        graph.producer[name]
        for name in factors
        if name in graph.producer and graph.nodes[graph.producer[name]].op_type == "Sigmoid"
    ]
    return graph.nodes[product].op_type == "Mul" and any(
        read.tensor in factors for gate in gates for read in graph.reads[gate]
    )


def _explain_sum(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    sums = subject.names(position for item in conversions for position in item.readers)
    return Finding(
        "sum",
        "fail",
        f"{some(sums)} reads {subject.graph.source(tensor)} through Q/DQ but another operand in float: a DQ "
        "kernel, the sum in float, and its convolution emits float",
        f"quantize both operands of {some(sums)}, each with a quantizer of its own",
        sums,
    )


def _readers(subject: Subject, conversions: list[Conversion]) -> tuple[list[str], bool]:
    """Names of the layers that read the converted tensor, and whether a Concat is among them."""
    positions = [position for item in conversions for position in item.readers]
    concat = any(position >= 0 and subject.graph.nodes[position].op_type == "Concat" for position in positions)
    return subject.names(positions), concat


def _explain_float_reader(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    readers, concat = _readers(subject, conversions)
    return Finding(
        "concat" if concat else "float-reader",
        "fail",
        f"{some(readers)} reads {subject.graph.source(tensor)} through Q/DQ but does not run in INT8: a DQ kernel",
        "give everything behind the Concat one scale"
        if concat
        else f"take the Q/DQ in front of {some(readers)} away, or quantize all its inputs",
        readers,
    )


def _explain_unequal_scales(subject: Subject, tensor: str, conversions: list[Conversion]) -> Finding:
    readers, concat = _readers(subject, conversions)
    return Finding(
        "concat" if concat else "requantize",
        "fail",
        f"{subject.graph.source(tensor)} is INT8 already and {some(readers)} wants it in another scale "
        f"({_number(conversions[0].scale)}): a kernel from INT8 to INT8",
        f"give the quantizers of {some(readers)} and of what makes the tensor one scale",
        readers,
    )


_EXPLANATIONS: dict[str, Callable[[Subject, str, list[Conversion]], Finding]] = {
    "two scales": _explain_two_scales,
    "mixed readers": _explain_mixed_readers,
    "image": _explain_image,
    "float producer": _explain_float_producer,
    "sum": _explain_sum,
    "float reader": _explain_float_reader,
    "unequal scales": _explain_unequal_scales,
    "half quantized": _explain_half_quantized,
}
