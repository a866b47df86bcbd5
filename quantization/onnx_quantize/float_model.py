"""The float ONNX that is to be quantized: read, refused with a reason, brought to FP32 and to an opset with Q/DQ."""

from __future__ import annotations

import logging

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper, version_converter

from quantization.data.input_size import input_size
from quantization.errors import UserError
from quantization.onnx_graph.load import load_onnx
from quantization.options import LOWEST_OPSET
from quantization.preflight.operators import QDQ

LOG = logging.getLogger("quantization")
MIN_OPSET = LOWEST_OPSET["torchscript"]  # per-channel Q/DQ
OLDEST_OPSET = 11  # onnx's converter knows the operators of YOLO exports from here on
IMAGE_CHANNELS = 3
MAX_BYTES = 2**31  # of a protobuf file
CONSTANT_WEIGHTS = 4  # the IR version from which on initializers need not be inputs
INTEGER = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


class FloatModel:
    """A float detector as ONNX.

    Args:
        file: an ONNX in FP32 or FP16, with its external data beside it.
        opset: bring it to this one at least; None: to the first that has per-channel Q/DQ.

    Attributes:
        source: as it was read.
        model: in FP32; inputs and outputs keep their types.
        name: of the input.
        shape: of the input (B, C, H, W); None where a side is open.
        dtype: of the input.

    Raises:
        UserError: it is no ONNX, too large, quantized already, no network of one image input, or of too old an opset.
    """

    def __init__(self, file: str, opset: int | None = None) -> None:
        self.file, self.source = file, load_onnx(file)
        refuse(self.source, file)
        entry = image_input(self.source, file)
        self.name = entry.name
        self.shape = tuple(dim.dim_value or None for dim in entry.type.tensor_type.shape.dim)
        self.dtype = np.float16 if entry.type.tensor_type.elem_type == TensorProto.FLOAT16 else np.float32
        self.model = in_fp32(with_opset(self.source, opset or MIN_OPSET, file))
        fix_weights(self.model)

    def image_shape(self, asked: int | None) -> tuple[int, int, int]:
        """C, H and W of the input; where the graph leaves C open, 3, and see ``input_size``."""
        return (self.shape[1] or IMAGE_CHANNELS, *input_size((self.shape[2], self.shape[3]), asked, self.file))

    def for_images(self, shape: tuple[int, int, int]) -> ModelProto:
        """A copy of ``model`` whose input has this C, H and W, from which all shapes follow."""
        result = ModelProto()
        result.CopyFrom(self.model)
        del result.graph.value_info[:]
        entry = next(value for value in result.graph.input if value.name == self.name)
        for dim, side in zip(entry.type.tensor_type.shape.dim, (self.shape[0] or 1, *shape)):
            dim.dim_value = side
        for value in result.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")
        return result


def refuse(model: ModelProto, file: str) -> None:
    """Refuse a model that there is nothing to do for.

    Raises:
        UserError: it is too large for one file, or quantized.
    """
    if model.ByteSize() >= MAX_BYTES:
        raise UserError(f"{file} takes {model.ByteSize() / 2**30:.1f} GiB: an ONNX file holds 2 GiB at most")
    found = next((node.op_type for node in model.graph.node if node.op_type in (*QDQ, *INTEGER)), None)
    if found is not None:
        raise UserError(f"{file} is quantized already (it has {found}): give the float ONNX that it was made of")


def image_input(model: ModelProto, file: str) -> onnx.ValueInfoProto:
    """The one input of a detector.

    Raises:
        UserError: there are several, or it is no image.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise UserError(f"{file} has {len(inputs)} inputs: one, an image (B, 3, H, W), is expected")
    kind = inputs[0].type.tensor_type
    if len(kind.shape.dim) != 4 or kind.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise UserError(
            f"{file}: its input {inputs[0].name} is no image (B, 3, H, W) in FP32 or FP16: export the network alone, "
            "without pre-processing"
        )
    return inputs[0]


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def with_opset(model: ModelProto, opset: int, file: str) -> ModelProto:
    """The model in ``opset`` or a newer one; the model itself if it is new enough.

    Raises:
        UserError: onnx cannot convert it.
    """
    before = opset_of(model)
    if before >= opset:
        return model
    remedy = f"export it with opset {opset} or newer"
    if before < OLDEST_OPSET:
        raise UserError(f"{file} is of opset {before}, which cannot hold Q/DQ: {remedy}")
    try:
        converted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter's own errors have no common class
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is of opset {before}, and onnx cannot convert it ({reason}): {remedy}") from error
    LOG.info("%s: converted from opset %d to %d", file, before, opset)
    return converted


def fix_weights(model: ModelProto) -> None:
    """Weights that the graph lists as inputs too, as old exporters do, become constants, in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, CONSTANT_WEIGHTS)


# --- FP16 to FP32 -----------------------------------------------------------------------------------------------------


def in_fp32(model: ModelProto) -> ModelProto:
    """A copy in FP32: weights, constants and Casts; FP16 inputs and outputs keep their type behind a Cast."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if not any(is_half(tensor) for tensor in _tensors(result)):
        return result
    del graph.value_info[:]
    for tensor in _tensors(result):
        if is_half(tensor):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in graph.node:
        for item in node.attribute:
            if item.name in ("to", "dtype") and item.i == TensorProto.FLOAT16:
                item.i = TensorProto.FLOAT
    _keep_types(graph)
    return result


def is_half(tensor: TensorProto) -> bool:
    """Whether a tensor is FP16."""
    return bool(tensor.data_type == TensorProto.FLOAT16)


def _tensors(model: ModelProto) -> list[TensorProto]:
    attributes = (item for node in model.graph.node for item in node.attribute if item.type == AttributeProto.TENSOR)
    return [*model.graph.initializer, *(item.t for item in attributes)]


def _keep_types(graph: onnx.GraphProto) -> None:
    """Put a Cast behind each FP16 input and before each FP16 output."""
    renamed: dict[str, str] = {}
    casts_in, casts_out = [], []
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and value.name not in weights:
            renamed[value.name] = f"{value.name}_fp32"
            casts_in.append(_cast(value.name, renamed[value.name], TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            renamed[value.name] = f"{value.name}_fp32"
            casts_out.append(_cast(renamed[value.name], value.name, TensorProto.FLOAT16))
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    nodes = [*casts_in, *graph.node, *casts_out]
    copies = onnx.GraphProto()
    copies.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def _cast(before: str, after: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [before], [after], name=f"{after}_cast", to=to)
