"""Writing Q/DQ nodes into an ONNX: one pair for a tensor, whoever reads it, and one for a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from quantization.onnx_graph.graph import OnnxGraph
from quantization.ranges.levels import LEAST_AMAX, highest_level


def scale_of(amax: np.ndarray | float) -> np.ndarray:
    """The float32 scale of each amax; any scale is exact for zeros, and TensorRT refuses zero."""
    amax = np.asarray(amax, np.float32)
    return np.where(amax < LEAST_AMAX, np.float32(1), amax) / np.float32(highest_level())


def channel_scales(weight: np.ndarray, axis: int) -> np.ndarray:
    """A weight's scales (C,), one for each slice along ``axis``: its largest magnitude over 127."""
    return scale_of(np.abs(weight).max(tuple(dimension for dimension in range(weight.ndim) if dimension != axis)))


class PairWriter:
    """Puts Q/DQ pairs between the tensors of a graph and those who read them.

    Args:
        model: changed in place by ``finish``, the inputs of its nodes by ``read``.
    """

    def __init__(self, model: ModelProto) -> None:
        self._graph: GraphProto = model.graph
        graph = OnnxGraph(model)
        self._taken = {*graph.producer, *graph.consumers, *graph.initializers, *(node.name for node in graph.nodes)}
        self._makers = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
        self._pairs: dict[tuple[str, int | None], str] = {}  # tensor and axis to what the DQ makes
        self._behind: dict[int, list[NodeProto]] = {}  # index of a node, or -1, to what is written behind it

    def read(self, node: NodeProto, index: int, tensor: str, scale: np.ndarray, axis: int | None = None) -> None:
        """Let an input of a node of the graph read ``tensor`` through a pair.

        Args:
            node: of the graph.
            index: of its input.
            tensor: what it reads then, quantized; the same scale at every call.
            scale: () or (C,) float32.
            axis: of the channels; None: per tensor.
        """
        key = (tensor, axis)
        if key not in self._pairs:
            self._pairs[key] = self._write_pair(tensor, scale, axis)
        node.input[index] = self._pairs[key]

    def finish(self) -> None:
        """Put the pairs behind the nodes that make their tensors."""
        nodes = list(self._behind.get(-1, []))
        for index, node in enumerate(self._graph.node):
            nodes += [node, *self._behind.get(index, [])]
        ordered = GraphProto()
        ordered.node.extend(nodes)
        del self._graph.node[:]
        self._graph.node.extend(ordered.node)

    def _write_pair(self, tensor: str, scale: np.ndarray, axis: int | None) -> str:
        names = {part: self._fresh(f"{tensor}_{part}") for part in ("scale", "zero_point", "quantized", "dequantized")}
        self._graph.initializer.extend(
            (
                numpy_helper.from_array(np.asarray(scale, np.float32), names["scale"]),
                numpy_helper.from_array(np.zeros(np.shape(scale), np.int8), names["zero_point"]),
            )
        )
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        parameters = [names["scale"], names["zero_point"]]
        self._behind.setdefault(self._makers.get(tensor, -1), []).extend(
            helper.make_node(
                operator, [before, *parameters], [after], name=self._fresh(f"{tensor}_{operator}"), **attributes
            )
            for operator, before, after in (
                ("QuantizeLinear", tensor, names["quantized"]),
                ("DequantizeLinear", names["quantized"], names["dequantized"]),
            )
        )
        return names["dequantized"]

    def _fresh(self, name: str) -> str:
        """A name that the graph does not have yet."""
        found, number = name, 1
        while found in self._taken:
            found, number = f"{name}_{number}", number + 1
        self._taken.add(found)
        return found
