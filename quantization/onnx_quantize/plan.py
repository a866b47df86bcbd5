"""A plan of Q/DQ over a float graph: which reads get a pair, which of them share a scale, and the graph as it would be."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Collection

from quantization.preflight.groups import scale_classes
from quantization.preflight.qdq_graph import Pair, QdqGraph, Read


@dataclass(frozen=True)
class Plan:
    """Which inputs of which layers get Q/DQ. Layers are positions in the graph.

    Attributes:
        weights: convolutions with Q/DQ on input and weight.
        inputs: head convolutions with Q/DQ on the input alone.
        sums: additions with Q/DQ on both operands, or on one, see ``is_added_in_kernel``.
        resizes: nearest Resizes with Q/DQ on the input.
        pools: average pools with Q/DQ on the input.
        outputs: of the convolutions in ``weights``, those whose activation reads them through Q/DQ.
        reasons: why other layers with weights stay float.
    """

    weights: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    resizes: tuple[int, ...] = ()
    pools: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    reasons: dict[int, str] = field(default_factory=dict)

    def reads(self, graph: QdqGraph) -> list[Read]:
        """The reads that get Q/DQ, in the order of the graph."""
        positions = sorted({*self.weights, *self.inputs, *self.sums, *self.resizes, *self.pools})
        inputs = [read for position in positions for read in graph.reads[position] if self.reads_input(graph, read)]
        behind = [read for position in self.outputs for read in graph.readers[graph.nodes[position].output[0]]]
        return sorted(dict.fromkeys(inputs + behind), key=lambda read: (read.node, read.index))

    def reads_input(self, graph: QdqGraph, read: Read) -> bool:
        """Whether an input of one of the plan's layers gets Q/DQ."""
        if read.node not in self.sums:
            return read.index == 0
        makes = [is_added_in_kernel(graph, operand, self.weights) for operand in graph.reads[read.node]]
        return sum(makes) != 1 or not is_added_in_kernel(graph, read, self.weights)

    def groups(self, graph: QdqGraph) -> list[list[Read]]:
        """These reads by the scale that they share, in the order of the graph."""
        classes = scale_classes(graph)
        found: dict[str, list[Read]] = {}
        for read in self.reads(graph):
            found.setdefault(classes.find(read.tensor), []).append(read)
        return list(found.values())


def is_added_in_kernel(graph: QdqGraph, read: Read, quantized: Collection[int]) -> bool:
    """Whether an operand of a sum comes from a quantized convolution with nothing in between, and for the sum alone.

    Then TensorRT adds the other operand in that convolution's kernel. A pair in between would make the sum a layer of its
    own, and round once more.
    """
    maker = graph.producer.get(read.tensor, -1)
    return maker in quantized and graph.nodes[maker].op_type == "Conv" and len(graph.readers[read.tensor]) == 1


def place_names(graph: QdqGraph, reads: list[Read]) -> list[str]:
    """What the places of Q/DQ are called: the layer, ``:1`` behind it for a sum's second operand."""
    return [graph.layer(read.node) + (f":{read.index}" if read.index else "") for read in reads]


def planned_graph(graph: QdqGraph, plan: Plan) -> QdqGraph:
    """The graph with the pairs of a plan, for preflight's prediction; their keys are numbers of groups, not scales.

    Args:
        graph: a float one; unchanged.
        plan: of this graph.
    """
    pairs = {
        read: Pair(None, None, float(number)) for number, reads in enumerate(plan.groups(graph), 1) for read in reads
    }
    weight = Pair(None, None, 0.0)
    result = copy.copy(graph)
    result.reads = [
        [replace(read, pairs=(pairs[read],)) if read in pairs else read for read in reads] for reads in graph.reads
    ]
    result.weights = [
        [replace(read, pairs=(weight,)) if position in plan.weights and read.index == 1 else read for read in reads]
        for position, reads in enumerate(graph.weights)
    ]
    result.readers = {}
    for read in (*(read for reads in result.reads for read in reads), *graph.outputs):
        result.readers.setdefault(read.tensor, []).append(read)
    return result
