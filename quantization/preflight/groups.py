"""Scale groups as a Q/DQ ONNX shows them: layers whose Q/DQ reads tensors that must carry one scale.

``placement.scale_groups`` finds the same groups before there are scales, with the same rules of what commutes.
"""

from __future__ import annotations

from quantization.preflight.qdq_graph import QdqGraph
from quantization.union_find import UnionFind


def scale_classes(graph: QdqGraph) -> UnionFind:
    """The tensors of a graph by the scale that they must have: operations that commute with Q/DQ join them."""
    classes = UnionFind()
    for position, node in enumerate(graph.nodes):
        if graph.commutes[position]:
            classes.join_all([*(read.tensor for read in graph.reads[position]), *filter(None, node.output)])
    return classes


class ScaleGroups:
    """The scale groups of a graph.

    Attributes:
        members: the layers of each group, in the order of the graph; groups of one are left out.
    """

    def __init__(self, graph: QdqGraph) -> None:
        self._classes = scale_classes(graph)
        layers: dict[str, dict[str, None]] = {}
        for position, reads in enumerate(graph.reads):
            for read in reads:
                if read.pairs:
                    layers.setdefault(self._classes.find(read.tensor), {})[graph.layer(position)] = None
        groups = {name: list(found) for name, found in layers.items() if len(found) > 1}
        self.members = list(groups.values())
        self._numbers = {name: number for number, name in enumerate(groups, 1)}

    def number(self, tensor: str) -> int | None:
        """Number of the group of a tensor, from 1; None if it is in no group."""
        return self._numbers.get(self._classes.find(tensor))
