"""The check of a Q/DQ ONNX that looks at scales and zero points."""

from __future__ import annotations

from typing import Iterator

import numpy as np

from quantization.onnx_graph.graph import attribute
from quantization.preflight.findings import Finding, some
from quantization.preflight.operators import CONVOLUTIONS, WEIGHTED
from quantization.preflight.qdq_graph import Pair, QdqGraph
from quantization.preflight.subject import Subject


def check_scales(subject: Subject) -> list[Finding]:
    """Every scale there, positive, finite, the same in both halves; zero points 0 in int8; per tensor or per channel."""
    graph = subject.graph
    found: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for position, node in enumerate(graph.nodes):
        inputs = [("input", read) for read in graph.reads[position]]
        for read in graph.weights[position]:
            kind = "constant" if node.op_type not in WEIGHTED else "weight" if read.index < 2 else "bias"
            inputs.append((kind, read))
        for kind, read in inputs:
            for pair in read.pairs:
                for problem in _pair_problems(graph, position, pair, kind):
                    layers, tensors = found.setdefault(problem, ({}, {}))
                    layers[graph.layer(position)] = tensors[read.tensor] = None
    return [
        Finding("scales", severity, f"{some(list(layers))}: {what}", change, list(layers), list(tensors))
        for (severity, what, change), (layers, tensors) in found.items()
    ]


def _pair_problems(graph: QdqGraph, position: int, pair: Pair, kind: str) -> Iterator[tuple[str, str, str]]:
    """(severity, what, change) of each problem of a pair in front of an "input", a "weight", a "bias" or a "constant"."""
    if kind == "bias":
        yield (
            "fail",
            "the bias is quantized, which TensorRT's parser refuses",
            "leave biases float (ONNX Runtime: extra_options QuantizeBias=False)",
        )
        return
    if pair.dequantize is None or (pair.quantize is None and kind == "input"):
        yield (
            "fail",
            f"the {kind} has a Q without DQ or a DQ without Q",
            "put a QuantizeLinear and a DequantizeLinear behind each other, without operators in INT8 between them",
        )
    found = [graph.scale(node) for node in pair.halves]
    scales = [scale for scale in found if scale is not None and scale.size > 0]
    if len(scales) < len(found):
        yield (
            "fail",
            f"the {kind}'s scale is missing or computed in the graph; TensorRT needs a constant",
            "calibrate statically, then export (no dynamic quantization)",
        )
        return
    yield from _value_problems(graph, pair, scales, kind)
    if kind == "input" and scales[0].size > 1:
        yield (
            "fail",
            "the input's scale is per channel; TensorRT quantizes activations per tensor",
            "use one scale for the whole tensor",
        )
    if kind != "input" and graph.nodes[position].op_type in CONVOLUTIONS:
        yield from _weight_problems(graph, position, scales[0].size, attribute(pair.halves[0], "axis", 1))


def _value_problems(graph: QdqGraph, pair: Pair, scales: list[np.ndarray], kind: str) -> Iterator[tuple[str, str, str]]:
    if not all((np.isfinite(scale) & (scale > 0)).all() for scale in scales):
        yield (
            "fail",
            f"the {kind}'s scale is zero, negative, NaN or infinite; the build stops at \"Scale coefficients "
            'must all be positive"',
            "calibrate again: the quantizer saw no tensor, or one with NaN",
        )
    zeros = [graph.zero_point(node) for node in pair.halves]
    if any(zero is not None and np.any(zero) for zero, _ in zeros):
        yield (
            "fail",
            f"the {kind}'s zero point is not 0; TensorRT quantizes symmetrically",
            "quantize symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric)",
        )
    wrong = sorted({name for _, name in zeros if name not in ("int8", "unknown")})
    if wrong:
        yield (
            "fail",
            f"the {kind}'s zero point is {wrong[0]}, TensorRT wants int8 (none at all means uint8)",
            "give both nodes an int8 zero point of 0",
        )
    if len(scales) == 2 and not np.array_equal(scales[0].ravel(), scales[1].ravel(), equal_nan=True):
        yield ("fail", f"the {kind}'s Q and DQ have different scales", "give both halves one scale")


def _weight_problems(graph: QdqGraph, position: int, size: int, axis: int) -> Iterator[tuple[str, str, str]]:
    """Problems of a convolution's weight with ``size`` scales along ``axis``."""
    wanted = 1 if graph.nodes[position].op_type == "ConvTranspose" else 0
    shape = graph.weight_shape(position)
    if size == 1 and len(shape) > wanted and shape[wanted] > 1:
        yield (
            "warn",
            "the weight has one scale for all channels, which costs accuracy",
            f"quantize weights per channel, axis {wanted}",
        )
    elif size > 1 and axis != wanted:
        yield (
            "fail",
            f"the weight is quantized along axis {axis}; TensorRT wants the output channels, axis {wanted}",
            f"quantize weights along axis {wanted}",
        )
