"""OnnxGraph: an ONNX graph with producer and consumer indices, built once."""

from __future__ import annotations

from ast import literal_eval
from typing import Any, Dict, List, Optional, Tuple, Union

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
        self.nodes: List[NodeProto] = list(model.graph.node)
        self.producer: Dict[str, NodeProto] = {}
        self.consumers: Dict[str, List[Tuple[NodeProto, int]]] = {}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {output.name for output in model.graph.output}
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))

    def _constant_source(self, name: str) -> Union[TensorProto, NodeProto, None]:
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

    def constant(self, name: str) -> Optional[np.ndarray]:
        """The value of an initializer or a Constant node, through Identity; None if ``name`` is computed."""
        source = self._constant_source(name)
        if isinstance(source, NodeProto):
            source = attribute(source, "value")
        if source is None:
            return None
        return numpy_helper.to_array(source) if isinstance(source, TensorProto) else np.asarray(source)


class UnionFind:
    """Disjoint sets of names, with path halving."""

    def __init__(self) -> None:
        self.parent: Dict[str, str] = {}

    def find(self, name: str) -> str:
        parent = self.parent
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, a: str, b: str) -> None:
        self.parent[self.find(a)] = self.find(b)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; strings are decoded. For a Constant, "value" finds the scalar forms (value_float ...) too."""
    for item in node.attribute:
        if item.name == name or (name == "value" and node.op_type == "Constant"):
            value = onnx.helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def module_path(node: NodeProto) -> str:
    """Path of the torch module that a node was exported from, for messages.

    The weight's name says it for a layer with weights. Otherwise it is in the scopes that the exporters write: in the
    node's name (TorchScript: ``/model/model.2/m/m.0/cv1/act/Mul``) or its metadata (dynamo). Both name a module below
    a container by the container's name too, and begin with the ``model`` of export.ExportOutputs.

    Returns:
        A path as ``model.2.m.0.cv1``; the node's name or operator where nothing tells the module.
    """
    weight = next((name for name in node.input[1:2] if name.endswith(".weight")), None)
    if weight is not None:
        path = weight[:-len(".weight")]
    else:
        scopes = [item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"]
        parts = literal_eval(scopes[0]) if scopes else node.name.split("/")
        path, last = "", ""
        for part in filter(None, parts[:-1]):
            container = next((name for name in (path, last) if name and part.startswith(name + ".")), "")
            if container:
                path = path[:-len(container)]
            elif path:
                path += "."
            path, last = path + part, part
    if path.startswith("model.model."):
        path = path[len("model."):]
    for tail in (".act", ".conv", ".addop"):  # parts of upstream's Conv, and of our shortcut sums
        path = path[:-len(tail)] if path.endswith(tail) else path
    return path or node.name or node.op_type
