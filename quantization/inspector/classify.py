"""What a layer does, and in which precision."""

from __future__ import annotations

from quantization.inspector.layers import Layer
from quantization.inspector.names import metadata_nodes

# The first kind with a fragment of the layer type wins. Types differ between versions: CaskConvolution and
# correlation, PointWiseV2 and ElementWise, Reformat and MyelinReformat; match without case.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("reformat", ("reformat",)),
    ("no-op", ("noop",)),
    ("constant", ("constant",)),
    ("conv", ("conv", "correlation", "correlate")),
    ("matmul", ("gemm", "matmul", "matrixmultiply", "matrix_multiply", "fullyconnected")),
    ("quantize", ("quantize",)),
    ("pointwise", ("pointwise", "elementwise", "activation", "unary", "scale", "eltwise")),
    ("pooling", ("pool",)),
    ("resize", ("resize",)),
    ("concat", ("concat",)),
    ("shuffle", ("shuffle", "slice", "gather", "transpose", "copy", "move")),
    ("myelin", ("myelin", "kgen", "foreignnode")),
)
KINDS: tuple[str, ...] = (*tuple(kind for kind, _ in _KINDS), "other")
PRECISIONS = ("Int8", "FP8", "FP16", "BF16", "FP32", "other")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast")
_FLOATS = ("FP32", "FP16", "BF16")
_QUANTIZED = ("Int8", "FP8", "Int4", "FP4")


def kind(layer: Layer) -> str:
    """One of ``KINDS``. A Myelin kernel of nothing but Q, DQ and casts counts as ``quantize``."""
    text = layer.type.lower()
    found = next((name for name, fragments in _KINDS if any(fragment in text for fragment in fragments)), "other")
    if found == "myelin" and layer.metadata:
        nodes = [node.rsplit("/", 1)[-1] for node in metadata_nodes(layer)]
        if nodes and all(node.startswith(_CONVERSIONS) for node in nodes):
            return "quantize"
    return found


def precision(layer: Layer) -> str:
    """One of ``PRECISIONS``: what the layer computes in, that is the type of its first input."""
    tensors = layer.inputs or layer.outputs
    datatype = tensors[0].datatype if tensors else ""
    return datatype if datatype in PRECISIONS else "other"


def is_reformat(layer: Layer) -> bool:
    """Does it only convert or copy: a Reformat, or a Q or DQ in a kernel of its own?"""
    return kind(layer) in ("reformat", "quantize")


def type_change(layer: Layer) -> tuple[str, str] | None:
    """(from, to) of a Reformat that changes the type; None for any other layer."""
    if not is_reformat(layer) or not layer.inputs or not layer.outputs:
        return None
    before, after = layer.inputs[0].datatype, layer.outputs[0].datatype
    return (before, after) if before and after and before != after else None


def quantizes(layer: Layer) -> bool:
    """Is it a Q that became a layer of its own?"""
    change = type_change(layer)
    return change is not None and change[0] in _FLOATS and change[1] in _QUANTIZED


def dequantizes(layer: Layer) -> bool:
    """Is it a DQ that became a layer of its own?"""
    change = type_change(layer)
    return change is not None and change[0] in _QUANTIZED and change[1] in _FLOATS


def rescales(layer: Layer) -> bool:
    """Is it a DQ and Q with different scales, in one Reformat from INT8 to INT8?"""
    return is_reformat(layer) and origin(layer) == "QDQ" and type_change(layer) is None


def origin(layer: Layer) -> str:
    """Why a Reformat exists: TensorRT's word, or ``unnamed`` where it gives none (MyelinReformat)."""
    return layer.origin or ("QDQ" if kind(layer) == "quantize" else "unnamed")


def computes_in_float(layer: Layer) -> bool:
    return precision(layer) in _FLOATS


def emits_float(layer: Layer) -> bool:
    return bool(layer.outputs) and layer.outputs[0].datatype in _FLOATS
