"""OnnxGraph: an ONNX graph with producer and consumer indices, built once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

SHAPE_SIZE = 64  # an initializer up to this size may be a shape, which inference must know


class OnnxGraph:
    """Look-ups over the main graph of a model.

    Attributes:
        nodes: in the file's order.
        producer: tensor name to the node that makes it.
        consumers: tensor name to (node, input index) pairs.
        initializers: tensor name to TensorProto.
        outputs: names of the graph's outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = {}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {output.name for output in model.graph.output}
        self._constant_sources: dict[str, TensorProto | NodeProto | None] = {}
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))

    def _constant_source(self, name: str) -> TensorProto | NodeProto | None:
        """The initializer or Constant node that ``name`` comes from, through Identity; None if it is computed.

        The answer is kept for every tensor on the way, so that a chain of Identities is walked once.
        """
        passed: dict[str, None] = {}  # also ends the walk in a cycle
        while name not in self._constant_sources and name not in passed:
            passed[name] = None
            node = self.producer.get(name)
            if name in self.initializers or node is None or node.op_type != "Identity":
                constant = node if node is not None and node.op_type == "Constant" else None
                self._constant_sources[name] = self.initializers.get(name, constant)
                break
            name = node.input[0]
        source = self._constant_sources.get(name)
        self._constant_sources.update(dict.fromkeys(passed, source))
        return source

    def is_constant(self, name: str) -> bool:
        """Whether ``name`` is an initializer or a Constant node's, through Identity; its value is not read."""
        return self._constant_source(name) is not None

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initializer or a Constant node, through Identity; None if ``name`` is computed."""
        source = self._constant_source(name)
        if isinstance(source, NodeProto):
            source = attribute(source, "value")
        if source is None:
            return None
        return numpy_helper.to_array(source) if isinstance(source, TensorProto) else np.asarray(source)


def without_weights(model: onnx.ModelProto, largest: int = SHAPE_SIZE) -> onnx.ModelProto:
    """A copy for onnx's own functions, which copy weights several times and refuse 2 GB.

    Args:
        model: unchanged.
        largest: initializers of more elements become inputs of the graph.
    """
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    graph.input.extend(model.graph.input)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    names = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= largest:
            graph.initializer.append(tensor)
        elif tensor.name not in names:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; strings are decoded. For a Constant, "value" finds the scalar forms (value_float ...) too."""
    for item in node.attribute:
        if item.name == name or (name == "value" and node.op_type == "Constant"):
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default
