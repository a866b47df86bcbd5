"""The checks of a Q/DQ ONNX that look at layers: those left in float, the stem, a convolution and its activation."""

from __future__ import annotations

from quantization.preflight.findings import Finding, some
from quantization.preflight.operators import ACTIVATIONS, CONVOLUTIONS, POINTWISE, WEIGHTED
from quantization.preflight.subject import Subject, stem_is_faster_in_float, unfused_operators


def check_float_layers(subject: Subject) -> list[Finding]:
    """Unquantized convolutions are those of the policy and of the head; no convolution is quantized by half."""
    findings = []
    for position, node in enumerate(subject.graph.nodes):
        if node.op_type not in WEIGHTED:
            continue
        if position in subject.propagation.quantized:
            finding = _against_policy(subject, position)
        else:
            finding = _half_quantized(subject, position) or _unquantized(subject, position)
        if finding is None:
            continue
        finding.layers = [subject.graph.layer(position)]
        finding.tensors = [read.tensor for read in subject.graph.reads[position]]
        finding.elements = sum(map(subject.graph.elements, [*finding.tensors, *node.output]))
        findings.append(finding)
    return findings


def _against_policy(subject: Subject, position: int) -> Finding | None:
    if position not in subject.policy:
        return None
    name = subject.graph.layer(position)
    return Finding(
        "policy",
        "fail",
        f"{name} is quantized, but the policy leaves it in float",
        f"take {name} out of --ignore, or quantize the checkpoint with that policy",
    )


def _half_quantized(subject: Subject, position: int) -> Finding | None:
    graph, state = subject.graph, subject.propagation.state
    weight, kernels = graph.weight(position), subject.kernels_around[position]
    has_weight = weight is not None and bool(weight.pairs)
    has_input = any(read.pairs or state[read.tensor] is not None for read in graph.reads[position])
    if not has_weight and (not has_input or position in subject.allowed):
        return None
    name = graph.layer(position)
    half, other = ("weight", "input") if has_weight else ("input", "weight")
    return Finding(
        "half-quantized",
        "fail",
        f"{name} has Q/DQ on its {half} but not on its {other}: it runs in float{_with_kernels(kernels)}",
        f"quantize the {other} of {name} too, or neither",
        kernels=kernels,
    )


def _unquantized(subject: Subject, position: int) -> Finding | None:
    if position in subject.allowed or not subject.should_be_int8(position):
        return None
    name, operator = subject.graph.layer(position), subject.graph.nodes[position].op_type
    kernels = subject.kernels_around[position]
    return Finding(
        "unquantized",
        "fail" if operator in CONVOLUTIONS else "warn",
        f"{name} ({operator}) has no Q/DQ and no policy asked for that: it runs in float{_with_kernels(kernels)}",
        f"quantize {name}, or name it with --ignore",
        kernels=kernels,
    )


def _with_kernels(count: int) -> str:
    return f", with {count} kernel{'s' if count > 1 else ''} for conversion" if count else ""


def check_stem(subject: Subject) -> list[Finding]:
    """A convolution that reads the image in INT8 where FP16 is faster, see ``onnx_graph.stem``."""
    graph = subject.graph
    return [
        Finding(
            "stem",
            "warn",
            *_slow_stem(subject, position),
            [graph.layer(position)],
            [read.tensor for read in graph.reads[position]],
            kernels=1,
            elements=graph.elements(graph.nodes[position].output[0]),
        )
        for position in sorted(subject.stems & subject.propagation.quantized)
        if stem_is_faster_in_float(graph, position, _paired_readers(subject, position) is not None)
    ]


def _slow_stem(subject: Subject, position: int) -> tuple[str, str]:
    """What makes an INT8 stem slow, and what to change."""
    what = f"{subject.graph.layer(position)} reads the image in INT8"
    if stem_is_faster_in_float(subject.graph, position, paired=True):
        return (
            f"{what}: its channels are padded to 32, which is slower than FP16",
            "leave it in float (--stem auto does)",
        )
    operators = some(unfused_operators(subject.graph, position))
    return (
        f"{what} and emits float, since TensorRT does not fuse its {operators}: that is slower than FP16",
        f"quantize before its {operators} too (--activation-pairs stem does), or leave it in float (--stem float)",
    )


def _paired_readers(subject: Subject, position: int) -> list[int] | None:
    """The activations that read a convolution's output, each through Q/DQ; None if there are other readers."""
    graph = subject.graph
    reads = graph.readers.get(graph.nodes[position].output[0], [])
    if not reads or not all(
        read.pairs and read.node >= 0 and graph.nodes[read.node].op_type in ACTIVATIONS for read in reads
    ):
        return None
    return [read.node for read in reads]


def check_activations(subject: Subject) -> list[Finding]:
    """The output of a quantized convolution feeds its activation only, else they cannot be one kernel."""
    findings = []
    for position in sorted(subject.propagation.quantized):
        for finding in (_pair_before_activation(subject, position), _other_readers(subject, position)):
            if finding is not None:
                tensor = subject.graph.nodes[position].output[0]
                finding.layers.insert(0, subject.graph.layer(position))
                finding.tensors, finding.kernels, finding.elements = [tensor], 1, subject.graph.elements(tensor)
                findings.append(finding)
    return findings + _apart_from_activation(subject)


def _apart_from_activation(subject: Subject) -> list[Finding]:
    """Pairs between convolutions that do not read the image and activations that TensorRT may fuse with them: one finding."""
    graph = subject.graph
    apart = [
        position
        for position in sorted(subject.propagation.quantized - subject.stems)
        if unfused_operators(graph, position) and _paired_readers(subject, position) is not None
    ]
    if not apart:
        return []
    names, tensors = subject.names(apart), [graph.nodes[position].output[0] for position in apart]
    return [
        Finding(
            "activation",
            "warn",
            f"a Q/DQ between {some(names)} and their activations: TensorRT cannot take these into the convolutions' kernels",
            "compare engines: TensorRT 8.6 fuses LeakyReLU with all convolutions but the one that reads the image",
            names,
            tensors,
            len(apart),
            sum(map(graph.elements, tensors)),
        )
    ]


def _pair_before_activation(subject: Subject, position: int) -> Finding | None:
    graph, readers = subject.graph, _paired_readers(subject, position)
    if readers is None:
        return None
    operators = list(dict.fromkeys(graph.nodes[reader].op_type for reader in readers))
    what = f"a Q/DQ between {graph.layer(position)} and its {some(operators)}: "
    if not unfused_operators(graph, position):
        what += "the convolution cannot take its activation into its kernel"
        return Finding("activation", "fail", what, "quantize behind the activation only", subject.names(readers))
    if position not in subject.stems:
        return None  # told for all of them together
    what += "two INT8 layers, since TensorRT does not fuse them where the convolution reads the image"
    return Finding(
        "activation", "known", what, "none needed: it is faster than without this Q/DQ", subject.names(readers)
    )


def _other_readers(subject: Subject, position: int) -> Finding | None:
    graph, name = subject.graph, subject.graph.layer(position)
    tensor = graph.nodes[position].output[0]
    if subject.propagation.state[tensor] is not None or any(read.pairs for read in graph.readers.get(tensor, [])):
        return None  # emitted in INT8, or told by the check of conversions
    ends = _ends_of_activation(subject, tensor)
    if len(ends) < 2 or subject.tail.issuperset(ends):
        return None
    others = subject.names(ends)
    return Finding(
        "activation",
        "fail",
        f"the output of {name} feeds {some(others)}: the convolution cannot take its activation into its kernel and "
        "emits float",
        f"let {name} feed its activation only",
        others,
    )


def _ends_of_activation(subject: Subject, tensor: str) -> list[int]:
    """The readers of a convolution's output that lead into no other reader of it by pointwise layers."""
    graph = subject.graph
    readers = list(dict.fromkeys(read.node for read in graph.readers.get(tensor, [])))
    if len(readers) < 2:
        return readers
    leading: set[int] = set()
    pending, first = list(readers), min(position for position in readers if position >= 0)
    while pending:  # backward from the readers, over pointwise layers behind the convolution
        position = pending.pop()
        inputs = graph.outputs if position < 0 else graph.reads[position]
        for before in (graph.producer.get(read.tensor, -1) for read in inputs):
            if before >= first and before not in leading and graph.nodes[before].op_type in POINTWISE:
                leading.add(before)
                pending.append(before)
    return [position for position in readers if position not in leading]
