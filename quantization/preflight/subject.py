"""Subject: a Q/DQ graph with its prediction and the parts that its layers play, which is what the checks look at."""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from typing import Callable, Iterable

import onnx

from quantization.onnx_graph.activations import UNFUSED_OPERATORS
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import attribute
from quantization.onnx_graph.stem import IMAGE_CHANNELS, faster_in_float
from quantization.preflight.operators import CONVOLUTIONS, POINTWISE, WEIGHTED
from quantization.preflight.propagation import Propagation
from quantization.preflight.qdq_graph import QdqGraph

BEYOND_TENSORRT_8 = 19  # opset; of 18 it documents nothing, and the dynamo exporter writes nothing older
FLOAT_LAYERS = "quant-tools.float-layers"  # entry of an ONNX's metadata: JSON, path of a layer left float to the reason


def nothing(path: str) -> bool:
    """No layer was left in float on purpose."""
    return False


class Subject:
    """What the checks look at.

    Args:
        graph: the file.
        is_float: whether the layer of a path was left in float on purpose, besides those that the file tells.

    Attributes:
        graph: the file.
        propagation: the prediction for it.
        head: convolutions whose outputs reach a graph output without another convolution.
        stems: convolutions that read the image.
        policy: layers with weights that were left in float on purpose.
        allowed: layers that may stay float: head, stems with a stride, and policy.
    """

    def __init__(self, graph: QdqGraph, is_float: Callable[[str], bool] = nothing) -> None:
        self.graph = graph
        self.propagation = Propagation(graph)
        self.head = head_convolutions(graph)
        self.stems = stem_convolutions(graph)
        told = float_layers(graph.onnx.model)
        self.policy = {
            position
            for position, node in enumerate(graph.nodes)
            # a sum may stay float too
            if node.op_type in (*WEIGHTED, "Add") and (is_float(graph.layer(position)) or graph.layer(position) in told)
        }
        strided = {position for position in self.stems if max(strides_of(graph, position)) > 1}
        self.allowed = self.head | strided | self.policy

    @property
    def is_for_tensorrt_8(self) -> bool:
        """Whether TensorRT 8 may read the file."""
        opsets = self.graph.onnx.model.opset_import
        return (
            max((entry.version for entry in opsets if entry.domain in ("", "ai.onnx")), default=0) < BEYOND_TENSORRT_8
        )

    @cached_property
    def tail(self) -> set[int]:
        """Layers behind which nothing runs in INT8: the head and the decode; -1, a graph output, among them."""
        graph = self.graph
        leads: set[int] = set()
        for position in range(len(graph.nodes) - 1, -1, -1):
            readers = [read.node for name in graph.nodes[position].output for read in graph.readers.get(name, [])]
            if position in self.propagation.quantized or any(reader in leads for reader in readers):
                leads.add(position)
        return {-1, *range(len(graph.nodes))} - leads

    def float_maker(self, tensor: str) -> int | None:
        """The layer, float without being asked to be, whose activation makes the tensor."""
        position = self._makers[self.graph.producer[tensor]]
        return position if position >= 0 and self.should_be_int8(position) and position not in self.allowed else None

    @cached_property
    def _makers(self) -> list[int]:
        """For each layer the one that it is the activation of, or itself; -1: a pointwise layer behind the image."""
        makers: list[int] = []
        for position, node in enumerate(self.graph.nodes):
            if node.op_type in POINTWISE and self.graph.reads[position]:
                before = self.graph.producer.get(self.graph.reads[position][0].tensor, -1)
                makers.append(makers[before] if before >= 0 else -1)
            else:
                makers.append(position)
        return makers

    @cached_property
    def kernels_around(self) -> Counter[int]:
        """How many conversions each layer costs that is float by mistake."""
        count: Counter[int] = Counter()
        for item in self.propagation.conversions:
            if item.reason == "half quantized":
                count.update(set(item.readers))
            elif item.reason == "float producer":
                maker = self.float_maker(item.tensor)
                count.update([] if maker is None else [maker])
        return count

    def should_be_int8(self, position: int) -> bool:
        """Whether a layer has a weight, or is a convolution by one: what quantization is for."""
        return self.graph.nodes[position].op_type in CONVOLUTIONS or self.graph.weight(position) is not None

    def names(self, positions: Iterable[int]) -> list[str]:
        """What the layers are called, each name once."""
        return list(dict.fromkeys(self.graph.layer(position) for position in positions))


def float_layers(model: onnx.ModelProto) -> set[str]:
    """The layers that whoever quantized the model left in float on purpose, as its metadata tells."""
    text = next((entry.value for entry in model.metadata_props if entry.key == FLOAT_LAYERS), "{}")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    return set(content) if isinstance(content, dict) else set()


def head_convolutions(graph: QdqGraph) -> set[int]:
    """Convolutions and linear layers whose outputs reach a graph output without passing another one.

    One that takes the mean of a distribution is of the decode: those before it are of the head too.
    """
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
            if not is_expectation(graph.nodes[position], graph.onnx):
                continue
        pending += [read.tensor for read in graph.reads[position]]
    return found


def stem_convolutions(graph: QdqGraph) -> set[int]:
    """Convolutions that read the image itself, not a rearrangement of it."""
    return {
        read.node
        for name in graph.inputs
        for read in graph.readers.get(name, [])
        if read.node >= 0
        and graph.nodes[read.node].op_type == "Conv"
        and _reads_an_image(graph.weight_shape(read.node))
    }


def strides_of(graph: QdqGraph, position: int) -> list[int]:
    """Down and across, of a convolution; [1] where the node does not say."""
    found: list[int] = attribute(graph.nodes[position], "strides", [1])
    return found


def _reads_an_image(weight: list[int]) -> bool:
    """Whether a weight has the channels of an image; one that is not inferred, or no convolution's, has not."""
    return len(weight) > 2 and weight[1] <= IMAGE_CHANNELS


def unfused_operators(graph: QdqGraph, position: int) -> list[str]:
    """The operators that read a convolution's output, with or without Q/DQ, and that TensorRT may not fuse with it."""
    readers = graph.readers.get(graph.nodes[position].output[0], [])
    operators = (graph.nodes[read.node].op_type for read in readers if read.node >= 0)
    return [operator for operator in dict.fromkeys(operators) if operator in UNFUSED_OPERATORS]


def stem_is_faster_in_float(graph: QdqGraph, position: int, paired: bool) -> bool:
    """Whether one of ``stem_convolutions`` is, see ``onnx_graph.stem``.

    Args:
        graph: a float one, or one with Q/DQ.
        position: of the convolution.
        paired: its activation reads it through Q/DQ.
    """
    splits = not paired and bool(unfused_operators(graph, position))
    return faster_in_float(graph.weight_shape(position)[2:], strides_of(graph, position), splits)
