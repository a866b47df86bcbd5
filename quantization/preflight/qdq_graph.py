"""QdqGraph: what the layers of a Q/DQ ONNX read, with the Q/DQ pairs taken out and noted.

    SiLU --Q--DQ-- Conv        =>        SiLU ---- Conv        the read has the tensor of SiLU and one pair
    W ----Q--DQ---/                      W -------/            a constant read with one pair

Casts between float types and Identities are taken out too, so a graph with an FP16 remainder reads like one in FP32,
and the forms of both torch exporters and of onnxsim read alike. Needs onnx and numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from quantization.onnx_graph.commuting import commutes
from quantization.onnx_graph.graph import OnnxGraph, attribute, without_weights
from quantization.onnx_graph.module_path import module_path
from quantization.preflight.operators import QDQ, WEIGHTED

Scale = Union[float, bytes]  # a per-tensor scale; the bytes of any other, or the name of a computed one
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_RESHAPING = {"Transpose", "Reshape", "Squeeze", "Unsqueeze"}
_SHAPE_OPS = {"Shape", "Size"}
_NUMBER = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8", TensorProto.INT32: "int32"}


@dataclass(frozen=True, eq=False)
class Pair:
    """A QuantizeLinear and a DequantizeLinear behind it.

    Attributes:
        quantize: None where the tensor is stored in INT8.
        dequantize: None where an INT8 operator reads the Q itself.
        key: equal for pairs of equal scale.
    """

    quantize: NodeProto | None
    dequantize: NodeProto | None
    key: Scale

    @property
    def halves(self) -> list[NodeProto]:
        """The nodes that are there, Q first."""
        return [node for node in (self.quantize, self.dequantize) if node is not None]

    @property
    def name(self) -> str:
        """A tensor that no other pair makes; node names need not be unique."""
        return self.halves[0].output[0]


@dataclass(frozen=True, eq=False)
class Read:
    """One input of a layer, or a graph output.

    Attributes:
        node: position of the layer in ``QdqGraph.nodes``; -1 for a graph output.
        index: which input of the layer it is, or which graph output.
        tensor: what is read, behind all pairs.
        pairs: from the tensor to the layer.
    """

    node: int
    index: int
    tensor: str
    pairs: tuple[Pair, ...]


class QdqGraph:
    """A Q/DQ ONNX as layers that read tensors.

    Args:
        model: its nodes in topological order, as ``load_onnx`` leaves them.

    Attributes:
        onnx: look-ups over the file's graph.
        nodes: the layers that work on the image: no Q, DQ, constants or arithmetic on shapes; topological order.
        reads: the image-dependent inputs of each node, in order.
        weights: the constant inputs of each node.
        readers: tensor to the reads of it.
        producer: tensor to the position of its layer; graph inputs are absent.
        commutes: for each node whether Q and DQ move over it.
        inputs: graph inputs.
        outputs: reads by graph outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.onnx = OnnxGraph(model)
        graph = model.graph
        self._types = infer_types(model)
        self.inputs = [value.name for value in graph.input if value.name not in self.onnx.initializers]
        self._parameters: dict[str, np.ndarray | None] = {}
        data = self._image_tensors()
        self._alias_sources = self._find_aliases()
        self._constants = self._find_constants()
        self.nodes: list[NodeProto] = []
        self.reads: list[list[Read]] = []
        self.weights: list[list[Read]] = []
        self.readers: dict[str, list[Read]] = {}
        self.producer: dict[str, int] = {}
        for node in self.onnx.nodes:
            if not any(name in data for name in node.output) or self._is_alias(node) or node.op_type in QDQ:
                continue
            position = len(self.nodes)
            reads = [self._trace(position, index, name) for index, name in enumerate(node.input) if name]
            self.nodes.append(node)
            self.reads.append([read for read in reads if read.tensor in data])
            self.weights.append([read for read in reads if read.tensor not in data])
            for read in self.reads[-1]:
                self.readers.setdefault(read.tensor, []).append(read)
            for name in node.output:
                self.producer[name] = position
        self.commutes = [commutes(node, self.onnx) for node in self.nodes]
        self.outputs = [self._trace(-1, index, value.name) for index, value in enumerate(graph.output)]
        for read in self.outputs:
            self.readers.setdefault(read.tensor, []).append(read)

    def _image_tensors(self) -> set[str]:
        """Tensors computed from the graph inputs otherwise than through their shape."""
        data = set(self.inputs)
        for node in self.onnx.nodes:
            if node.op_type not in _SHAPE_OPS and any(name in data for name in node.input):
                data.update(name for name in node.output if name)
        return data

    def _is_alias(self, node: NodeProto) -> bool:
        """Whether the node gives its input back: Identity, Dropout, or a Cast from float to float."""
        if node.op_type == "Cast":
            kind = self._types.get(node.input[0])
            return attribute(node, "to") in FLOAT_TYPES and (kind is None or kind.elem_type in (0, *FLOAT_TYPES))
        return node.op_type in ("Identity", "Dropout")

    def _find_aliases(self) -> dict[str, str]:
        """Output of each alias to what stands before all aliases in a row."""
        sources: dict[str, str] = {}
        for node in self.onnx.nodes:
            if self._is_alias(node):
                sources[node.output[0]] = sources.get(node.input[0], node.input[0])
        return sources

    def _find_constants(self) -> set[str]:
        """Constants, also behind what reshapes or quantizes them."""
        found = set(self.onnx.initializers)
        for node in self.onnx.nodes:
            keeps = node.op_type in _RESHAPING | QDQ or self._is_alias(node)
            if node.op_type == "Constant" or (keeps and node.input[0] in found):
                found.update(node.output)
        return found

    def _trace(self, position: int, index: int, name: str) -> Read:
        """Follow an input backward over Q/DQ pairs and aliases; a constant also over what reshapes it."""
        pairs: list[Pair] = []
        pending: NodeProto | None = None  # a DQ whose Q has not been met
        while True:
            name = self._alias_sources.get(name, name)
            node = self.onnx.producer.get(name)
            if node is None:
                break
            if node.op_type == "DequantizeLinear":
                if pending is not None:
                    pairs.append(Pair(None, pending, self._key(pending)))
                pending = node
            elif node.op_type == "QuantizeLinear":
                pairs.append(Pair(node, pending, self._key(node)))
                pending = None
            elif node.op_type not in _RESHAPING or name not in self._constants:
                break
            name = node.input[0]
        if pending is not None:
            pairs.append(Pair(None, pending, self._key(pending)))
        return Read(position, index, name, tuple(reversed(pairs)))

    def _key(self, node: NodeProto) -> Scale:
        value = self.scale(node)
        if value is None:
            return "".join(node.input[1:2]).encode()
        if value.size == 1 and np.isfinite(value).all():
            return float(np.float32(value.reshape(())))
        return value.tobytes()

    def scale(self, node: NodeProto) -> np.ndarray | None:
        """The scale of a Q or DQ node; None if it is missing or computed."""
        return self._parameter(node.input[1]) if len(node.input) > 1 else None

    def _parameter(self, name: str) -> np.ndarray | None:
        """The constant of this name, read once: a graph's pairs often share one."""
        if name not in self._parameters:
            self._parameters[name] = self.onnx.constant(name)
        return self._parameters[name]

    def zero_point(self, node: NodeProto) -> tuple[np.ndarray | None, str]:
        """The zero point of a Q or DQ node (None: not given, so zero) and the name of its integer type."""
        value = self._parameter(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if value is not None:
            return value, str(value.dtype)
        if node.op_type == "QuantizeLinear":
            return None, _NUMBER.get(attribute(node, "output_dtype", TensorProto.UINT8), "another type")
        stored = self.onnx.constant(node.input[0])
        return None, str(stored.dtype) if stored is not None else "unknown"

    def shape(self, tensor: str) -> list[int] | None:
        """Inferred shape; open dimensions count as 1, None if the rank is unknown."""
        kind = self._types.get(tensor)
        if tensor in self.onnx.initializers:
            return list(self.onnx.initializers[tensor].dims)
        if kind is None or not kind.HasField("shape"):
            return None
        return [dim.dim_value or 1 for dim in kind.shape.dim]

    def elements(self, tensor: str) -> int:
        """Number of elements, 0 if unknown."""
        shape = self.shape(tensor)
        return math.prod(shape) if shape else 0

    def weight(self, position: int) -> Read | None:
        """The weight of a convolution or matrix product; None if both factors depend on the image."""
        found = [read for read in self.weights[position] if read.index < 2]
        return found[0] if self.nodes[position].op_type in WEIGHTED and found else None

    def weight_shape(self, position: int) -> list[int]:
        """Shape of the weight of a convolution or matrix product, as the layer reads it; empty if unknown."""
        weight = self.weight(position)
        return [] if weight is None else self.shape(self.nodes[position].input[weight.index]) or []

    def layer(self, position: int) -> str:
        """What to call a layer: its module path, where the exporter left one."""
        if position < 0:
            return "graph output"
        node, weight = self.nodes[position], self.weight(position)
        path = module_path(node, weight.tensor if weight is not None else "")
        return path if path != node.op_type else node.output[0]  # a node without a name

    def source(self, tensor: str) -> str:
        """The layer that makes a tensor, or the input it is."""
        return self.layer(self.producer[tensor]) if tensor in self.producer else f"input {tensor}"


def infer_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Types and shapes by tensor name, inferred on a copy without weights: they would be copied three times.

    Shapes that the graph computes are followed: an export with open sides reshapes by them (from opset 15 on).
    """
    light = without_weights(model)
    try:
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except onnx.shape_inference.InferenceError:
        pass  # shapes serve the share of MACs and the sorting only, and the report says where they are unknown
    return {
        value.name: value.type.tensor_type
        for value in (*light.graph.input, *light.graph.value_info, *light.graph.output)
    }
