r"""The check for sums that TensorRT has computed wrongly: float convolution, activation, and an operand in a Concat.

    half of a Split ---------------+---- Concat        TensorRT makes one layer of convolution, activation and sum, and
       \\- Conv - SiLU - Conv - SiLU - Add              writes what a Concat reads into its buffer directly, or reads a
                                                       part of a Split where it lies: a view with gaps

TensorRT 11.2 to 11.3 reads such a view in FP16 as if it had none, without a message (NVIDIA/TensorRT#4854).
"""

from __future__ import annotations

from quantization.preflight.findings import Finding
from quantization.preflight.operators import CONVOLUTIONS, POINTWISE
from quantization.preflight.qdq_graph import Read
from quantization.preflight.subject import Subject

PARTS = {"Split", "Slice"}


def check_strided_sums(subject: Subject) -> list[Finding]:
    """No sum behind a float convolution and its activation reads a part of a Split, or what a Concat reads too."""
    graph = subject.graph
    findings = []
    for position, node in enumerate(graph.nodes):
        reads = graph.reads[position]
        if node.op_type != "Add" or len(reads) != 2 or any(read.pairs for read in reads):
            continue
        for own, other in (reads, reads[::-1]):
            conv, view = _activated_convolution(subject, own.tensor), _view(subject, other)
            if conv is not None and view:
                name = graph.layer(conv)
                findings.append(
                    Finding(
                        "strided-sum",
                        "warn",
                        f"{name} runs in float, and the sum behind its activation also reads {view}: TensorRT 11 has "
                        "computed such sums wrongly in FP16, boxes off and scores right, without a message "
                        "(NVIDIA/TensorRT#4854)",
                        f"quantize {name} and both operands of the sum, or compare the engine's boxes with ONNX Runtime's "
                        "after each build (eval-engine.py --onnx)",
                        [name, graph.layer(position)],
                        [other.tensor],
                    )
                )
                break
    return findings


def _activated_convolution(subject: Subject, tensor: str) -> int | None:
    """The float convolution that a tensor is an activation of: nothing else comes in on the way."""
    graph = subject.graph
    first = graph.producer.get(tensor, -1)
    if first < 0 or graph.nodes[first].op_type not in POINTWISE:
        return None
    seen: set[int] = set()
    pending, makers = [first], set()
    while pending:
        position = pending.pop()
        if position < 0 or graph.nodes[position].op_type not in POINTWISE:
            makers.add(position)
        elif position not in seen:
            seen.add(position)
            pending += [-1 if read.pairs else graph.producer.get(read.tensor, -1) for read in graph.reads[position]]
    (maker,) = makers if len(makers) == 1 else (-1,)
    is_float_conv = maker >= 0 and graph.nodes[maker].op_type in CONVOLUTIONS
    return maker if is_float_conv and maker not in subject.propagation.quantized else None


def _view(subject: Subject, read: Read) -> str:
    """What makes the memory of a sum's operand a part of another tensor's; empty: nothing."""
    graph = subject.graph
    maker = graph.producer.get(read.tensor, -1)
    if maker >= 0 and graph.nodes[maker].op_type in PARTS:
        return f"a part of {graph.layer(maker)}"
    others = [other.node for other in graph.readers[read.tensor] if other.node >= 0 and not other.pairs]
    concat = next((position for position in others if graph.nodes[position].op_type == "Concat"), None)
    return "" if concat is None else f"{graph.source(read.tensor)}, which {graph.layer(concat)} concatenates"
