"""OnnxGraph: an ONNX graph with producer and consumer indices, built once."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper


class OnnxGraph:
    """Look-ups over the main graph of a model.

    Attributes:
        nodes: in the file's order.
        producer: tensor name to the node that makes it.
        consumers: tensor name to (node, input index) pairs.
        initializers: tensor name to TensorProto.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: List[NodeProto] = list(model.graph.node)
        self.producer: Dict[str, NodeProto] = {}
        self.consumers: Dict[str, List[Tuple[NodeProto, int]]] = {}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))

    def constant(self, name: str) -> Optional[np.ndarray]:
        """The value of an initializer or a Constant node, through Identity; None if ``name`` is computed."""
        while name not in self.initializers:
            node = self.producer.get(name)
            if node is None:
                return None
            if node.op_type == "Constant":
                value = attribute(node, "value")
                return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            if node.op_type != "Identity":
                return None
            name = node.input[0]
        return numpy_helper.to_array(self.initializers[name])


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; strings are decoded. For a Constant, "value" finds the scalar forms (value_float ...) too."""
    for item in node.attribute:
        if item.name == name or (name == "value" and node.op_type == "Constant"):
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def fold_identities(model: onnx.ModelProto) -> int:
    """Remove Identity nodes in place; their readers read the tensor behind them.

    The exporter merges equal initializers through Identity, which TensorRT turns into layers of their own.

    Returns:
        Number of nodes removed. An Identity that makes a graph output stays.
    """
    outputs = {output.name for output in model.graph.output}
    source: Dict[str, str] = {}
    kept: List[NodeProto] = []
    for node in model.graph.node:  # topological order: a source is resolved before its readers
        for index, name in enumerate(node.input):
            if name in source:
                node.input[index] = source[name]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    removed = len(model.graph.node) - len(kept)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return removed
