"""OnnxGraph: an ONNX graph with producer and consumer indices, built once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper


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
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))

    def _constant_source(self, name: str) -> TensorProto | NodeProto | None:
        """The initializer or Constant node that ``name`` comes from, through Identity; None if it is computed."""
        while name not in self.initializers:
            node = self.producer.get(name)
            if node is None or node.op_type == "Constant":
                return node
            if node.op_type != "Identity":
                return None
            name = node.input[0]
        return self.initializers[name]

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


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; strings are decoded. For a Constant, "value" finds the scalar forms (value_float ...) too."""
    for item in node.attribute:
        if item.name == name or (name == "value" and node.op_type == "Constant"):
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default
