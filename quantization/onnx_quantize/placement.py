"""Where Q/DQ go in a float graph, by the rules of docs/placement.md, asked of preflight's own prediction.

The rules are those for checkouts (``placement.policy``): convolutions, both operands of shortcut sums, nearest Resize. What
a graph holds beside that, nobody knows. So each plan is shown to ``preflight.propagation`` before anything is calibrated;
where a Q kernel would buy little, its readers stay float, and the plan is made anew.

    qkv conv --+-- Split -- MatMul, Softmax       v is needed in float: a depthwise convolution does not pay for a Q kernel,
               +-- v ------ depthwise conv        so it stays float, and the attention block gets no conversion
"""

from __future__ import annotations

from dataclasses import replace
from typing import Collection

from quantization.onnx_graph.commuting import refusal
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import attribute
from quantization.onnx_quantize.candidates import ADD, POOL, RESIZES, Candidates, find_candidates
from quantization.onnx_quantize.plan import Plan, planned_graph
from quantization.options import LayerOptions
from quantization.preflight.conversions import interpolates
from quantization.preflight.operators import POINTWISE
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.subject import Subject, head_convolutions

# what ``--head auto`` means for a head with a branch each for boxes and scores: with float inputs, twice as many tensors as in
# other heads would leave INT8; speed and accuracy of each choice are in docs/any-onnx.md
BRANCHED_HEAD = "int8"


def choose_plan(graph: QdqGraph, options: LayerOptions) -> Plan:
    """Where Q/DQ go.

    Args:
        graph: a float one; shapes of the tensors known as far as possible.
        options: stem, head and policy.

    Raises:
        UserError: see ``find_candidates``.
    """
    if options.head == "auto" and has_branches(graph):
        options = replace(options, head=BRANCHED_HEAD)
    candidates = find_candidates(graph, options)
    reasons = dict(candidates.reasons)
    while True:
        plan = complete(graph, candidates, reasons)
        subject = Subject(planned_graph(graph, plan), set(map(graph.layer, reasons)).__contains__)
        light = light_readers(subject)
        if not light:
            return replace(plan, inputs=head_inputs(subject, candidates, options.head))
        reasons.update(light)


def complete(graph: QdqGraph, candidates: Candidates, reasons: dict[int, str]) -> Plan:
    """The plan with all layers quantized but those with a reason; sums, Resizes and average pools follow from them."""
    weights = tuple(position for position in candidates.layers if position not in reasons)
    quantized = coming_from(graph, weights)
    leads = sorted(leading_to(graph, weights))

    def chosen(operators: tuple[str, ...]) -> list[int]:
        return [p for p in leads if graph.nodes[p].op_type in operators and p not in reasons]

    return Plan(
        weights,
        (),
        tuple(position for position in chosen((ADD,)) if is_shortcut(graph, position, quantized)),
        tuple(position for position in chosen(RESIZES) if graph.commutes[position]),
        # in float, a pool would keep the layer before it from emitting INT8, and a Q kernel would follow
        tuple(position for position in chosen((POOL,)) if graph.reads[position][0].tensor in quantized),
        tuple(position for position in candidates.paired if position not in reasons),
        dict(reasons),
    )


def passes_values(graph: QdqGraph, position: int) -> bool:
    """Whether a layer with no weight hands INT8 on: it commutes with Q/DQ, or a Q behind it is part of its kernel."""
    return graph.commutes[position] or graph.nodes[position].op_type in (*POINTWISE, POOL)


def leading_to(graph: QdqGraph, layers: Collection[int]) -> set[int]:
    """The layers from which one of ``layers`` is reached without another layer with a weight."""
    found: set[int] = set()
    for position in range(len(graph.nodes) - 1, -1, -1):
        readers = {read.node for name in graph.nodes[position].output for read in graph.readers.get(name, [])}
        if any(reader in layers or (reader in found and passes_values(graph, reader)) for reader in readers):
            found.add(position)
    return found


def coming_from(graph: QdqGraph, layers: Collection[int]) -> set[str]:
    """The tensors that come from one of ``layers`` without another layer with a weight."""
    found: set[str] = set()
    for position, node in enumerate(graph.nodes):
        passed = passes_values(graph, position) and any(read.tensor in found for read in graph.reads[position])
        if position in layers or passed:
            found.update(node.output)
    return found


def is_shortcut(graph: QdqGraph, position: int, quantized: Collection[str]) -> bool:
    """Whether an addition sums two maps of one shape, one of which at least comes from a quantized layer.

    If neither does (attention: a product and a float convolution), two Q kernels would be all that Q/DQ brings.
    """
    reads = graph.reads[position]
    shapes = [graph.shape(read.tensor) for read in reads]
    return len(reads) == 2 and shapes[0] == shapes[1] and any(read.tensor in quantized for read in reads)


def light_readers(subject: Subject) -> dict[int, str]:
    """The depthwise convolutions that would need a Q kernel of their own, since another layer wants their input in float."""
    graph, found = subject.graph, {}
    for conversion in subject.propagation.conversions:
        others = needed_in_float(subject, conversion.tensor) if conversion.reason == "mixed readers" else []
        if others and all(is_depthwise(graph, position) for position in conversion.readers):
            other = graph.nodes[others[0]]
            why = f"its input is needed in float too, by {graph.layer(others[0])} ({other.op_type}: {refusal(other)})"
            found.update(dict.fromkeys(conversion.readers, why))
    return found


def needed_in_float(subject: Subject, tensor: str) -> list[int]:
    """The layers that read a tensor in float although they could do without: neither head nor decode nor policy."""
    ends = subject.propagation.end_readers(tensor, None)
    return [
        position
        for position in ends
        if position not in subject.tail and position not in subject.allowed and not interpolates(subject, position)
    ]


def is_depthwise(graph: QdqGraph, position: int) -> bool:
    """Whether a layer is a convolution with one input channel for each group."""
    node = graph.nodes[position]
    return node.op_type == "Conv" and attribute(node, "group", 1) > 1 and graph.weight_shape(position)[1:2] == [1]


def head_inputs(subject: Subject, candidates: Candidates, head: str) -> tuple[int, ...]:
    """The head's convolutions whose input is quantized though they compute in float; see ``--head``."""
    graph = subject.graph
    if head == "input":
        return candidates.head
    tensors = {position: graph.reads[position][0].tensor for position in candidates.head}
    shared = [position for position, tensor in tensors.items() if subject.propagation.wanted(tensor) - {None}]
    shared.sort(key=lambda position: -graph.elements(tensors[position]))  # of equal ones the first in the graph
    chosen = {"auto": shared[:1], "shared": shared}.get(head, [])
    return tuple(sorted(chosen))


def has_branches(graph: QdqGraph) -> bool:
    """Whether a head has a branch each for boxes and scores: its convolutions read more tensors than there are sizes."""
    head = [p for p in head_convolutions(graph) if not is_expectation(graph.nodes[p], graph.onnx)]
    tensors = {read.tensor for position in head for read in graph.reads[position]}
    return len(tensors) > len({tuple((graph.shape(tensor) or [])[2:]) for tensor in tensors})
