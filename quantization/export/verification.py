"""An exported ONNX in ONNX Runtime against the torch model that it was made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from quantization.errors import UserError
from quantization.evaluation.box_differences import BoxDifferences, row_differences
from quantization.evaluation.comparison import NamedImages, comparison_images, found_differences
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export.graph import ExportOutputs, export_mode
from quantization.options import ExportOptions

LOG = logging.getLogger("quantization")
DRAWN = 4  # images, where the user names none
AT_ONCE = 4  # images, for the memory's sake


@dataclass(frozen=True)
class Difference:
    """ONNX Runtime against torch on the same images.

    Attributes:
        largest: largest absolute difference of the outputs, in their units (pixels, probabilities). A quantized network
            may have a large one in a box of hardly any score.
        mean: mean absolute difference.
        scale: largest absolute value of torch's output.
        boxes: how far the boxes are from each other.
    """

    largest: float
    mean: float
    scale: float
    boxes: BoxDifferences


def compare(model: nn.Module, file: str, options: ExportOptions, source: NamedImages | None = None) -> Difference:
    """Run the same images through torch and ONNX Runtime.

    Args:
        model: that was exported.
        file: the ONNX, which gives rows.
        options: its ``shape``.
        source: see ``comparison_images``.

    Raises:
        UserError: shapes differ, or an output is not finite.
    """
    images = comparison_images(source, options.shape, *([DRAWN] if source is None else []))
    device = next(model.parameters()).device
    predict, parts = OnnxPredictor(file), []
    with export_mode(model), torch.no_grad():
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            outputs = ExportOutputs(model)(torch.from_numpy(part).to(device))
            parts.append(([output.float().cpu().numpy() for output in outputs], predict.run(part)))
    expected, actual = ([np.concatenate(output) for output in zip(*side)] for side in zip(*parts))
    if [output.shape for output in actual] != [output.shape for output in expected]:
        raise UserError(
            f"ONNX Runtime gives the shapes {[output.shape for output in actual]}, torch "
            f"{[output.shape for output in expected]}"
        )
    if not all(np.isfinite(output).all() for output in actual):
        raise UserError("ONNX Runtime gives NaN or infinite outputs: the checkpoint is damaged")
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(actual, expected)])
    masks = expected[1].shape[1] if len(expected) > 1 else 0  # coefficients behind the scores
    rows = [output[0][..., : output[0].shape[-1] - masks] for output in (expected, actual)]
    boxes = row_differences(*rows) if source is None else found_differences(*rows)
    return Difference(
        float(errors.max()), float(errors.mean()), max(float(np.abs(part).max()) for part in expected), boxes
    )


def report_difference(difference: Difference, file: str, source: NamedImages | None) -> None:
    """Log how far the boxes are, with a warning where it is too far."""
    where = "drawn images (export --compare-images names real ones)" if source is None else f"images of {source.name}"
    LOG.info("%s: ONNX Runtime against torch on %s: %s", file, where, difference.boxes)
    if difference.boxes.is_suspicious:
        LOG.warning(
            "WARNING: %s gives other boxes in ONNX Runtime than in torch: evaluate it with the command test before use",
            file,
        )
