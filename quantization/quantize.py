"""Passes over a model: put quantizers in, give scale groups one quantizer, calibrate, switch on and off."""

from __future__ import annotations

import argparse
import functools
import logging

from torch import nn

from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.equalization import BATCHES, equalize
from quantization.calibration.group_ranges import GroupScale
from quantization.data.images import Dataset
from quantization.data.tensors import TensorLoader, training_sample
from quantization.export.graph import ExportOptions, export_graph
from quantization.placement import scale_groups as rules
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import recorded_placement
from quantization.quantizers.backend import (
    select_backend,
)

LOG = logging.getLogger("quantization")


def initialize(backend: str | None = None) -> str:
    """Select the quantizer backend and return its name; see ``quantizer.select_backend``."""
    return select_backend(backend)


def apply_custom_rules_to_quantizer(
    model: nn.Module, export_onnx: rules.ExportFunction | None = None
) -> list[rules.ScaleGroup]:
    """Give every scale group of ``model`` one quantizer, so that Q/DQ costs TensorRT nothing (quantization.placement.scale_groups).

    Args:
        model: from ``replace_to_quantization_module``, before calibration.
        export_onnx: gives the ONNX graph of the model that it is called with; None: ``export_graph``.

    Returns:
        All groups, also those of one quantizer.
    """
    if export_onnx is None:
        side = 2 * int(model.stride.max())  # the groups do not depend on it
        export_onnx = functools.partial(export_graph, options=ExportOptions((side, side)))
    groups = rules.find_scale_groups(model, export_onnx)
    rules.share_quantizers(model, groups)
    return groups


def equalize_channels(model: nn.Module, dataset: Dataset, options: argparse.Namespace) -> None:
    """Equalize a float model in place, unless the command line says no; before a copy of it becomes QAT's teacher."""
    if options.no_equalize:
        return
    loader = training_sample(dataset, options, BATCHES * options.batch_size)
    count = equalize(model, TensorLoader(loader, next(model.parameters()).device))
    if count:
        LOG.info("Equalized the ranges of %d channels", count)


def insert_and_calibrate(model: nn.Module, dataset: Dataset, options: argparse.Namespace) -> list[GroupScale]:
    """Quantize a float model in place, with the command line's options; returns the scales that tensors share."""
    LOG.info("Quantizer backend: %s", initialize(options.backend))
    quantized = replace_to_quantization_module(model, recorded_placement(model, vars(options)))
    LOG.info("%d modules quantized", len(quantized))
    if not options.no_rules:
        side = 2 * int(model.stride.max())
        export = ExportOptions((side, side), exporter=options.exporter)
        apply_custom_rules_to_quantizer(model, functools.partial(export_graph, options=export))
    loader = training_sample(dataset, options, options.calib_batches * options.batch_size)
    images = TensorLoader(loader, next(model.parameters()).device)
    scales = calibrate_model(model, images, options.calib_method, len(loader), options.group_scale)
    LOG.info("Calibrated on %d images by %s", len(loader.files), options.calib_method)
    return scales
