"""FP16 for what is not quantized: strongly typed TensorRT (11, or 10 on request) runs a network as it is written.

    images (FP32) -- Cast -- Conv, Q/DQ with FP16 scales ... head convolutions -- Cast -- decode (FP32) -- outputs (FP32)

The decode stays in FP32: FP16 holds box coordinates above 512 to half a pixel only. ONNX Runtime's own converter is not
used since it leaves a pair of casts around every node that stays in FP32, which a strongly typed engine would run.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantization.errors import UserError
from quantization.onnx_graph.cleanup import remove_unread_constants
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import OnnxGraph

MIN_OPSET = 19  # the first whose QuantizeLinear takes FP16
LEAST = 2.0**-24  # the smallest positive FP16 number; a scale must not become 0
FLOAT_INPUTS = {"Resize": (1, 2)}  # inputs that stay FP32 whatever the data's type: roi and scales


def decode_tensors(graph: OnnxGraph) -> set[str]:
    """What the nodes behind the last convolutions make: no convolution reads it, directly or not."""
    body: set[str] = set()  # tensors that a convolution depends on
    decode: set[str] = set()
    for node in reversed(graph.nodes):  # topological order: readers come first here
        is_layer = node.op_type == "Conv" and not is_expectation(node, graph)
        if is_layer or any(name in body for name in node.output):
            body.update(node.input)
        elif node.op_type != "Constant":  # constants belong to their readers
            decode.update(node.output)
    return decode


def half(tensor: TensorProto, name: str) -> TensorProto:
    """An FP16 copy; positive values below ``LEAST`` are raised to it, so that no scale becomes 0."""
    values = numpy_helper.to_array(tensor)
    values = np.where((values > 0) & (values < LEAST), LEAST, values)
    with np.errstate(over="ignore"):  # check_range says which tensor it was
        return numpy_helper.from_array(values.astype(np.float16), name)


def check_opset(opset: int) -> None:
    """Raises a UserError if Q/DQ of this opset know no FP16."""
    if opset < MIN_OPSET:
        raise UserError(f"--fp16-remainder needs opset {MIN_OPSET} or newer, this is {opset}: leave --opset out")


def convert_remainder(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert everything but the decode, the input and the output to FP16.

    Args:
        model: opset 19 or newer; left as it is.

    Returns:
        A new model, checked.

    Raises:
        UserError: the opset is too old, or a weight does not fit FP16.
    """
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    check_opset(opset)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]  # the types change
    floats = {
        value.name
        for value in (*onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    decode = decode_tensors(OnnxGraph(result))
    conversion = HalfConversion(result, floats)
    for node in result.graph.node:
        if node.output[0] in decode:
            conversion.keep_float(node)
        else:
            conversion.make_half(node)
    conversion.finish([value.name for value in result.graph.output])
    del result.graph.node[:]
    result.graph.node.extend(conversion.nodes)
    remove_unread_constants(result)
    onnx.checker.check_model(result, full_check=True)
    return result


class HalfConversion:
    """The nodes of a graph, converted one by one in topological order.

    Args:
        model: gets the FP16 constants.
        floats: names of the computed FP32 tensors.

    Attributes:
        nodes: those converted so far, and the casts between the two parts.
    """

    def __init__(self, model: onnx.ModelProto, floats: set[str]) -> None:
        self.nodes: list[NodeProto] = []
        self._initializers = model.graph.initializer
        self._floats = floats
        self._constants = float_constants(OnnxGraph(model))
        entries = [value for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        self._inputs = {value.name for value in entries}
        self._casts: set[str] = set()  # names of their outputs
        self._made_half: set[str] = set()
        self._halves: dict[str, str] = {}  # constant to its FP16 copy

    def make_half(self, node: NodeProto) -> None:
        """Take a node of the body, in FP16."""
        for index, name in enumerate(node.input):
            if name in self._constants and index not in FLOAT_INPUTS.get(node.op_type, ()):
                node.input[index] = self._half(name)
            elif name in self._inputs:
                node.input[index] = self._cast(name, TensorProto.FLOAT16)
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
                item.i = TensorProto.FLOAT16
        self._made_half.update(name for name in node.output if name in self._floats and name not in self._constants)
        self.nodes.append(node)

    def keep_float(self, node: NodeProto) -> None:
        """Take a node of the decode, in FP32."""
        for index, name in enumerate(node.input):
            if name in self._made_half:
                node.input[index] = self._cast(name, TensorProto.FLOAT)
        self.nodes.append(node)

    def finish(self, outputs: list[str]) -> None:
        """Give the graph's outputs that the body makes, as raw head maps are, their names and FP32 back."""
        for name in outputs:
            if name not in self._made_half:
                continue
            for node in self.nodes:
                for names in (node.input, node.output):
                    for index, tensor in enumerate(names):
                        names[index] = f"{name}_fp16" if tensor == name else tensor
            self.nodes.append(
                helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_cast", to=TensorProto.FLOAT)
            )

    def _half(self, name: str) -> str:
        """The name of a constant's FP16 copy."""
        if name not in self._halves:
            self._halves[name] = f"{name}_fp16"
            self._initializers.append(half(self._constants[name], self._halves[name]))
            check_range(self._initializers[-1], name)
        return self._halves[name]

    def _cast(self, name: str, to: int) -> str:
        """The name of a tensor's copy in another type."""
        key = f"{name}_to_fp{16 if to == TensorProto.FLOAT16 else 32}"
        if key not in self._casts:
            self._casts.add(key)
            self.nodes.append(helper.make_node("Cast", [name], [key], name=f"{key}_cast", to=to))
        return key


def float_constants(graph: OnnxGraph) -> dict[str, TensorProto]:
    """FP32 initializers and Constant nodes by the name of their tensor."""
    found = {name: tensor for name, tensor in graph.initializers.items() if tensor.data_type == TensorProto.FLOAT}
    for node in graph.nodes:
        if node.op_type == "Constant":
            value = graph.constant(node.output[0])
            if value is not None and value.dtype == np.float32:
                found[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    return found


def check_range(tensor: TensorProto, name: str) -> None:
    """Raises a UserError if a finite FP32 value became infinite."""
    if not np.isfinite(numpy_helper.to_array(tensor)).all():
        raise UserError(f"--fp16-remainder: {name} holds values above 65504, which FP16 cannot: leave the option out")
