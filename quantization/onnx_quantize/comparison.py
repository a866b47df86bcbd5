"""How far a quantized graph is from the float one, by ONNX Runtime on the same images."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from onnx import ModelProto

from quantization.errors import UserError
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_quantize.activations import TensorRunner
from quantization.onnx_quantize.float_model import FloatModel
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.subject import head_convolutions

SORTING = ("TopK", "NonMaxSuppression")  # behind them, a score that changes a little puts detections in another order


def compared_tensors(models: Sequence[ModelProto], graph: QdqGraph) -> list[str]:
    """What is to be compared: the graph's outputs, unless they are sorted detections, and the maps of its head.

    Args:
        models: the float graph and the quantized one.
        graph: of the float one; a map that either of the models calls otherwise is left out.
    """
    is_sorted = any(node.op_type in SORTING for node in models[0].graph.node)
    outputs = [value.name for value in models[0].graph.output]
    made = set.intersection(*({name for node in model.graph.node for name in node.output} for model in models))
    layers = [graph.nodes[position] for position in sorted(head_convolutions(graph))]
    maps = [node.output[0] for node in layers if not is_expectation(node, graph.onnx) and node.output[0] in made]
    return list(dict.fromkeys([*([] if is_sorted else outputs), *maps])) or outputs


def tensor_ratios(
    models: Sequence[ModelProto], source: FloatModel, images: np.ndarray, tensors: Sequence[str]
) -> dict[str, float]:
    """The signal-to-noise ratio of tensors of the second of two graphs against the first, in decibels.

    Args:
        models: the float graph and the quantized one, which have these tensors.
        source: whose input they have.
        images: (B, C, H, W).
        tensors: names.

    Raises:
        UserError: the float graph or the quantized one gives NaN or infinity.
    """
    images = images.astype(source.dtype, copy=False)
    runners = [TensorRunner(model, source.name, source.shape[0], tensors) for model in models]
    signal, noise = (dict.fromkeys(tensors, 0.0) for _ in range(2))
    for (_, tensor, a), (_, _, b) in zip(*(runner(images) for runner in runners)):
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise UserError(f"tensor {tensor} holds NaN or infinity on a calibration image: check the ONNX")
        signal[tensor] += float(np.square(a, dtype=np.float64).sum())
        noise[tensor] += float(np.square(a.astype(np.float64) - b).sum())
    return {tensor: ratio_db(signal[tensor], noise[tensor]) for tensor in tensors}


def ratio_db(signal: float, noise: float) -> float:
    """A ratio of energies in decibels; infinite where there is no noise."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
