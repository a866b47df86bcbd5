"""The checks of a Q/DQ ONNX that look at nodes: scales, layers left in float, duplicates, outputs."""

from __future__ import annotations

from typing import Iterable

import numpy as np
from onnx import NodeProto

from quantization.onnx_graph.graph import attribute
from quantization.preflight.findings import Finding, Subject, some
from quantization.preflight.propagation import POINTWISE
from quantization.preflight.qdq_graph import CONVOLUTIONS, WEIGHTED, Pair, QdqGraph, Read

_ACTIVATION = POINTWISE - {"Add"}  # a quantized sum of two convolutions is a layer of its own

# --- 1: scales and zero points ----------------------------------------------------------------------------------------


def check_scales(subject: Subject) -> list[Finding]:
    """Every scale there, positive, finite, the same in both halves; zero points 0 in int8; per tensor or per channel."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    graph = subject.graph
    for position, reads in enumerate(graph.reads):
        for read in [*reads, *graph.weights[position]]:
            for pair in read.pairs:
                for problem in _pair_problems(graph, position, read, pair):
                    found.setdefault(problem, []).append((graph.layer(position), read.tensor))
    findings = []
    for (severity, what, change), places in found.items():
        layers, tensors = list(dict.fromkeys(place[0] for place in places)), list(dict.fromkeys(p[1] for p in places))
        findings.append(Finding("scales", severity, f"{some(layers)}: {what}", change, layers, tensors))
    return findings


def _pair_problems(graph: QdqGraph, position: int, read: Read, pair: Pair) -> Iterable[tuple[str, str, str]]:
    halves = [node for node in (pair.quantize, pair.dequantize) if node is not None]
    is_weight = read in graph.weights[position]
    what = (
        "input"
        if not is_weight
        else "constant"
        if graph.nodes[position].op_type not in WEIGHTED
        else "weight"
        if read.index < 2
        else "bias"
    )
    scales = [graph.scale(node) for node in halves]
    if what == "bias":
        yield (
            "fail",
            "the bias is quantized, which TensorRT's parser refuses",
            "leave biases float (ONNX Runtime: extra_options QuantizeBias=False)",
        )
        return
    if pair.dequantize is None or (pair.quantize is None and not is_weight):
        yield (
            "fail",
            f"the {what} has a Q without DQ or a DQ without Q",
            "put a QuantizeLinear and a DequantizeLinear behind each other, without operators in INT8 between them",
        )
    if any(scale is None or scale.size == 0 for scale in scales):
        yield (
            "fail",
            f"the {what}'s scale is missing or computed in the graph; TensorRT needs a constant",
            "calibrate statically, then export (no dynamic quantization)",
        )
        return
    if not all((np.isfinite(scale) & (scale > 0)).all() for scale in scales):
        yield (
            "fail",
            f"the {what}'s scale is zero, negative, NaN or infinite; the build stops at \"Scale coefficients "
            'must all be positive"',
            "calibrate again: the quantizer saw no tensor, or one with NaN",
        )
    zeros = [graph.zero_point(node) for node in halves]
    if any(zero is not None and np.any(zero) for zero, _ in zeros):
        yield (
            "fail",
            f"the {what}'s zero point is not 0; TensorRT quantizes symmetrically",
            "quantize symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric)",
        )
    wrong = sorted({kind for _, kind in zeros if kind not in ("int8", "unknown")})
    if wrong:
        yield (
            "fail",
            f"the {what}'s zero point is {wrong[0]}, TensorRT wants int8 (none at all means uint8)",
            "give both nodes an int8 zero point of 0",
        )
    if len(scales) == 2 and not np.array_equal(scales[0].ravel(), scales[1].ravel(), equal_nan=True):
        yield ("fail", f"the {what}'s Q and DQ have different scales", "give both halves one scale")
    yield from _granularity_problems(graph, position, read, halves[0], scales[0].size, what)


def _granularity_problems(
    graph: QdqGraph, position: int, read: Read, node: NodeProto, size: int, what: str
) -> Iterable[tuple[str, str, str]]:
    if what == "input":
        if size > 1:
            yield (
                "fail",
                "the input's scale is per channel; TensorRT quantizes activations per tensor",
                "use one scale for the whole tensor",
            )
        return
    op_type = graph.nodes[position].op_type
    if op_type not in CONVOLUTIONS:
        return
    wanted = 1 if op_type == "ConvTranspose" else 0
    axis = attribute(node, "axis", 1)
    if size == 1 and graph.weight_shape(position)[wanted] > 1:
        yield (
            "warn",
            "the weight has one scale for all channels, which costs accuracy",
            f"quantize weights per channel, axis {wanted}",
        )
    elif size > 1 and axis != wanted:
        yield (
            "fail",
            f"the weight is quantized along axis {axis}; TensorRT wants the output channels, axis {wanted}",
            f"quantize weights along axis {wanted}",
        )


# --- 5: layers left in float ------------------------------------------------------------------------------------------


def check_float_layers(subject: Subject) -> list[Finding]:
    """Unquantized convolutions are those of the policy and of the head; no convolution is quantized by half."""
    graph, findings = subject.graph, []
    for position, node in enumerate(graph.nodes):
        if node.op_type not in WEIGHTED:
            continue
        name, weight = graph.layer(position), graph.weight(position)
        around = [
            item
            for item in subject.propagation.conversions
            if (position in item.readers and item.reason == "half quantized")
            or (item.reason == "float producer" and subject.float_maker(item.tensor) == position)
        ]
        tensors = [read.tensor for read in graph.reads[position]]
        elements = sum(graph.elements(tensor) for tensor in [*tensors, *node.output])
        if position in subject.propagation.quantized:
            if position in subject.policy:
                findings.append(
                    Finding(
                        "policy",
                        "fail",
                        f"{name} is quantized, but the policy leaves it in float",
                        f"take {name} out of --ignore, or quantize the checkpoint with that policy",
                        [name],
                        tensors,
                        0,
                        elements,
                    )
                )
            continue
        has_input = any(
            read.pairs or subject.propagation.state[read.tensor] is not None for read in graph.reads[position]
        )
        if (weight is not None and weight.pairs) or (has_input and position not in subject.allowed):
            half, other = ("weight", "input") if weight is not None and weight.pairs else ("input", "weight")
            findings.append(
                Finding(
                    "half-quantized",
                    "fail",
                    f"{name} has Q/DQ on its {half} but not on its {other}: it runs in float{_kernels(len(around))}",
                    f"quantize the {other} of {name} too, or neither",
                    [name],
                    tensors,
                    len(around),
                    elements,
                )
            )
        elif position not in subject.allowed and subject.should_be_int8(position):
            severity = "fail" if node.op_type in CONVOLUTIONS else "warn"
            findings.append(
                Finding(
                    "unquantized",
                    severity,
                    f"{name} ({node.op_type}) has no Q/DQ and no policy asked for "
                    f"that: it runs in float{_kernels(len(around))}",
                    f"quantize {name}, or name it with --ignore",
                    [name],
                    tensors,
                    len(around),
                    elements,
                )
            )
    return findings


def check_stem(subject: Subject) -> list[Finding]:
    """A convolution with a stride that reads the image is slower in INT8 than in FP16 (docs/placement.md)."""
    graph = subject.graph
    return [
        Finding(
            "stem",
            "warn",
            f"{graph.layer(position)} reads the image in INT8: its channels are padded to 32, which "
            "is slower than FP16",
            "leave it in float (quantize --stem auto does)",
            [graph.layer(position)],
            [read.tensor for read in graph.reads[position]],
            1,
            graph.elements(graph.nodes[position].output[0]),
        )
        for position in sorted(subject.stems & subject.propagation.quantized)
    ]


def _kernels(count: int) -> str:
    return f", with {count} kernel{'s' if count > 1 else ''} for conversion" if count else ""


def check_activations(subject: Subject) -> list[Finding]:
    """The output of a quantized convolution feeds its activation only, else they cannot be one kernel."""
    graph, findings = subject.graph, []
    for position in sorted(subject.propagation.quantized):
        tensor, name = graph.nodes[position].output[0], graph.layer(position)
        reads = graph.readers.get(tensor, [])
        if reads and all(
            read.pairs and read.node >= 0 and graph.nodes[read.node].op_type in _ACTIVATION for read in reads
        ):
            others = subject.names(read.node for read in reads)
            findings.append(
                Finding(
                    "activation",
                    "fail",
                    f"a Q/DQ between {name} and {some(others)}: the convolution "
                    "cannot take its activation into its kernel",
                    "quantize behind the activation only",
                    [name, *others],
                    [tensor],
                    1,
                    graph.elements(tensor),
                )
            )
        if subject.propagation.state[tensor] is not None or any(read.pairs for read in reads):
            continue  # emitted in INT8, or told by the check of conversions
        ends = _ends_of_activation(subject, tensor)
        if len(ends) > 1 and not subject.tail.issuperset(ends):
            others = subject.names(ends)
            findings.append(
                Finding(
                    "activation",
                    "fail",
                    f"the output of {name} feeds {some(others)}: the convolution "
                    "cannot take its activation into its kernel and emits float",
                    f"let {name} feed its activation only",
                    [name, *others],
                    [tensor],
                    1,
                    graph.elements(tensor),
                )
            )
    return findings


def _ends_of_activation(subject: Subject, tensor: str) -> list[int]:
    """The readers of a convolution's output that lead into no other reader of it by pointwise layers."""
    graph = subject.graph
    readers = list(dict.fromkeys(read.node for read in graph.readers.get(tensor, [])))

    def leads_to_another(position: int) -> bool:
        pending, seen = [position], {position}
        while pending:
            here = pending.pop()
            if here < 0 or graph.nodes[here].op_type not in POINTWISE:
                continue
            for read in (read for name in graph.nodes[here].output for read in graph.readers.get(name, [])):
                if read.node in readers and read.node != position:
                    return True
                if read.node not in seen:
                    seen.add(read.node)
                    pending.append(read.node)
        return False

    return [position for position in readers if not leads_to_another(position)]


# --- 6: duplicates; 8: outputs ----------------------------------------------------------------------------------------


def check_duplicates(subject: Subject) -> list[Finding]:
    """No tensor has two Q/DQ pairs of one scale, side by side or behind each other."""
    tensors: dict[str, None] = {}
    layers: dict[str, None] = {}
    for tensor, reads in subject.graph.readers.items():
        first: dict[object, str] = {}
        for read in reads:
            keys = [pair.key for pair in read.pairs]
            twice = any(a == b for a, b in zip(keys, keys[1:]))
            if twice or (read.pairs and first.setdefault(keys[0], read.pairs[0].name) != read.pairs[0].name):
                tensors[tensor] = None
                layers[subject.graph.layer(read.node)] = None
    if not tensors:
        return []
    return [
        Finding(
            "duplicates",
            "warn",
            f"{len(tensors)} tensors have more than one Q/DQ pair of one scale (in front of "
            f"{some(list(layers))}): TensorRT merges them, but builds longer",
            "merge equal pairs",
            list(layers),
            list(tensors),
        )
    ]


def check_outputs(subject: Subject) -> list[Finding]:
    """The raw maps of the head are no outputs beside the detections."""
    graph = subject.graph
    values = {value.name: graph.shape(value.name) for value in graph.onnx.model.graph.output}
    raw = [name for name, shape in values.items() if shape is not None and len(shape) == 5]
    if not raw or len(raw) == len(values):
        return []
    return [
        Finding(
            "outputs",
            "fail",
            f"{len(raw)} raw maps of the head are outputs beside the detections ({some(raw)}): "
            "TensorRT must convert each to float32 and keep it",
            "export with export=True on the head, as the export command does",
            [],
            raw,
            len(raw),
            sum(graph.elements(name) for name in raw),
        )
    ]
