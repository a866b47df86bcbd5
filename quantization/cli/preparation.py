"""From a float model to a calibrated one, as the commands quantize and sensitive ask for it."""

from __future__ import annotations

import logging
import platform

import numpy as np
import torch
from torch import nn

from quantization import __version__
from quantization.calibration.equalization import BATCHES
from quantization.cli.options import QuantizeCommand, SensitiveCommand
from quantization.data.dataset import Dataset
from quantization.data.sample import SQNR_IMAGES, training_sample
from quantization.data.tensors import TensorLoader
from quantization.options import CalibrationOptions, DataOptions
from quantization.placement.policy import Placement
from quantization.quantize import ScaleReport, equalize_channels, initialize, quantize

LOG = logging.getLogger("quantization")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "quant-tools": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of its own, which pickles would name
        "numpy": np.__version__,
    }


def sample_tensors(
    dataset: Dataset, options: DataOptions, device: torch.device, count: int = SQNR_IMAGES
) -> TensorLoader:
    """``count`` training images at random, as tensors on ``device``."""
    return TensorLoader(training_sample(dataset, options, (options.imgsz, options.imgsz), count), device)


def prepare(model: nn.Module, dataset: Dataset, options: DataOptions, calibration: CalibrationOptions) -> None:
    """Equalize a float model in place on training images, if the options ask for it."""
    device = next(model.parameters()).device
    equalize_channels(model, sample_tensors(dataset, options, device, BATCHES * options.batch_size), calibration)


def calibrate(
    model: nn.Module,
    dataset: Dataset,
    placement: Placement,
    options: QuantizeCommand | SensitiveCommand,
) -> ScaleReport:
    """Quantize a float model in place on training images."""
    initialize(options.run.backend)
    count = options.calibration.batches * options.images.batch_size
    images = sample_tensors(dataset, options.images, next(model.parameters()).device, count)
    report = quantize(model, images, placement, options.calibration, options.placement.exporter)
    LOG.info("Calibrated on %d images by %s", images.image_count, options.calibration.method)
    return report
