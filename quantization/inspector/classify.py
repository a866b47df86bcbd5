"""What the types of TensorRT's layers mean, over all versions."""

from __future__ import annotations

from typing import Sequence

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
FLOATS = ("FP32", "FP16", "BF16")
QUANTIZED = ("Int8", "FP8", "Int4", "FP4")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast")


def kind_of(layer_type: str, nodes: Sequence[str] = ()) -> str:
    """One of ``KINDS``. A Myelin kernel of nothing but Q, DQ and casts counts as ``quantize``.

    Args:
        layer_type: TensorRT's word, for example ``CaskConvolution``.
        nodes: ONNX nodes that the metadata of the layer name.
    """
    text = layer_type.lower()
    found = next((name for name, fragments in _KINDS if any(fragment in text for fragment in fragments)), "other")
    if found == "myelin" and nodes and all(node.rsplit("/", 1)[-1].startswith(_CONVERSIONS) for node in nodes):
        return "quantize"
    return found
