"""The pipeline, one function per stage, and the published names.

    float model -> equalize_channels -> quantize -> (QAT: qat.run) -> export.export

Each stage takes the model, batches and options; none knows of the command line.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict, dataclass
from typing import Any, Iterable

import onnx
from torch import Tensor, nn

from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.equalization import equalize
from quantization.export.export import export_onnx
from quantization.export.graph import export_graph
from quantization.options import CalibrationOptions, ExportOptions
from quantization.placement import scale_groups as rules
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import Placement
from quantization.quantizers.backend import select_backend as initialize
from quantization.quantizers.switches import amax_table, disable_quantization
from quantization.ranges.group_scales import GroupScale
from quantization.upstream.model import largest_stride

__all__ = [
    "ScaleReport",
    "apply_custom_rules_to_quantizer",
    "calibrate_model",
    "disable_quantization",
    "equalize_channels",
    "export_onnx",
    "initialize",
    "insert_quantizers",
    "quantize",
    "replace_to_quantization_module",
]
LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class ScaleReport:
    """What ``quantize`` decided.

    Attributes:
        quantized: paths of the modules that hold quantizers.
        groups: places of each scale group.
        shared: ranges of the groups that read more than one tensor.
        amax: of every quantizer, by place; smallest and largest of a weight's.
    """

    quantized: list[str]
    groups: list[list[str]]
    shared: list[GroupScale]
    amax: dict[str, Any]

    def content(self) -> dict[str, Any]:
        """For the summary."""
        shared = [{**asdict(scale), "ratio": scale.ratio} for scale in self.shared]
        return {"groups": self.groups, "amax": self.amax, "shared_scales": shared}


def export_for_rules(model: nn.Module, exporter: str = "torchscript") -> onnx.ModelProto:
    """The graph in which the rules look for scale groups; they do not depend on its size."""
    side = 2 * largest_stride(model)
    return export_graph(model, ExportOptions((side,), exporter=exporter, decode="upstream"))


def apply_custom_rules_to_quantizer(
    model: nn.Module, export_onnx: rules.ExportFunction | None = None
) -> list[rules.ScaleGroup]:
    """Give every scale group of ``model`` one quantizer, so that Q/DQ costs TensorRT nothing (placement.scale_groups).

    Args:
        model: from ``replace_to_quantization_module``, before calibration.
        export_onnx: gives the ONNX graph of the model that it is called with; None: ``export_graph``.

    Returns:
        All groups, also those of one quantizer.
    """
    groups = rules.find_scale_groups(model, export_onnx or export_for_rules)
    rules.share_quantizers(model, groups)
    return groups


def equalize_channels(model: nn.Module, batches: Iterable[Tensor], options: CalibrationOptions) -> int:
    """Equalize a float model in place if the options ask for it; before a copy of it becomes QAT's teacher.

    Args:
        model: fused, in float.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        options: of the calibration.

    Returns:
        Number of channels whose range changed.
    """
    count = equalize(model, batches) if options.equalize else 0
    if count:
        LOG.info("Equalized the ranges of %d channels", count)
    return count


def insert_quantizers(model: nn.Module, placement: Placement, exporter: str = "torchscript") -> list[str]:
    """Put quantizers without ranges into a float model, in place, and join those of each scale group.

    Args:
        model: fused, in float.
        placement: where quantizers go; without ``extras`` every quantizer has a scale of its own.
        exporter: ONNX exporter that shows the graph to the rules.

    Returns:
        Paths of the modules that now hold quantizers.

    Raises:
        UserError: nothing is left to quantize.
    """
    LOG.info("Quantizer backend: %s", initialize())
    quantized = replace_to_quantization_module(model, placement)
    LOG.info("%d modules quantized", len(quantized))
    if placement.paired:
        LOG.info("Quantized before their activation too: %s", ", ".join(placement.paired))
    if placement.extras:
        apply_custom_rules_to_quantizer(model, functools.partial(export_for_rules, exporter=exporter))
    return quantized


def quantize(
    model: nn.Module,
    batches: Iterable[Tensor],
    placement: Placement,
    options: CalibrationOptions | None = None,
    exporter: str = "torchscript",
) -> ScaleReport:
    """Put quantizers into a float model, in place, join their scale groups and calibrate them.

    Args:
        model: fused, in float.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device; iterated twice by method "sqnr".
        placement: where quantizers go; without ``extras`` every quantizer has a scale of its own.
        options: of the calibration; None: the defaults.
        exporter: ONNX exporter that shows the graph to the rules.

    Raises:
        UserError: nothing is left to quantize, or calibration met NaN, infinity or no image.
    """
    options = options or CalibrationOptions()
    quantized = insert_quantizers(model, placement, exporter)
    scales = calibrate_model(model, batches, options.method, None, options.group_scale)
    groups = [list(group.names) for group in rules.shared_groups(model)]
    return ScaleReport(quantized, groups, scales, amax_table(model))
