"""How far a quantized graph is from the float one, by ONNX Runtime on the same images."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from onnx import ModelProto

from quantization.errors import UserError
from quantization.onnx_quantize.activations import TensorRunner


def output_ratios(models: Sequence[ModelProto], name: str, batch: int | None, images: np.ndarray) -> dict[str, float]:
    """The signal-to-noise ratio of each output of the second of two graphs against the first, in decibels.

    Args:
        models: the float graph and the quantized one.
        name: of their input.
        batch: its fixed size; None: open.
        images: (B, C, H, W).

    Raises:
        UserError: the float graph or the quantized one gives NaN or infinity.
    """
    outputs = [value.name for value in models[0].graph.output]
    runners = [TensorRunner(model, name, batch, outputs) for model in models]
    signal, noise = (dict.fromkeys(outputs, 0.0) for _ in range(2))
    for (_, expected), (_, actual) in zip(*(runner(images) for runner in runners)):
        for output, a, b in zip(outputs, expected, actual):
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise UserError(f"output {output} holds NaN or infinity on a calibration image: check the ONNX")
            signal[output] += float(np.square(a, dtype=np.float64).sum())
            noise[output] += float(np.square(a.astype(np.float64) - b).sum())
    return {output: ratio_db(signal[output], noise[output]) for output in outputs}


def ratio_db(signal: float, noise: float) -> float:
    """A ratio of energies; infinite where there is no noise."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
