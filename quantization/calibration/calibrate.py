"""Calibration of a model: every quantizer gets its amax from images."""

from __future__ import annotations

import logging
import math
from typing import Iterable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization.calibration.gradient_ranges import BOX_WEIGHT, GroupProbe, fill
from quantization.calibration.group_ranges import Collector, GroupCalibrator, GroupScale, end_batch, group_scales
from quantization.calibration.range_search import channel_amax, replace_zeros
from quantization.errors import UserError
from quantization.placement.scale_groups import place_name
from quantization.quantizers.backend import WEIGHT_NAME, named_quantizers, set_amax, swapped
from quantization.upstream.outputs import weighted_outputs

LOG = logging.getLogger("quantization")


@torch.no_grad()
def calibrate_model(
    model: nn.Module,
    batches: Iterable[Tensor],
    method: str = "mse",
    total: int | None = None,
    group_scale: str = "error",
) -> list[GroupScale]:
    """Set the amax of every quantizer: weights by their largest value, activations by ``method`` over ``batches``.

    Args:
        model: quantized; left in eval mode.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        method: one of ``calib.METHODS``; "sqnr" needs a detection network, and goes through the first batches twice.
        total: number of batches, for the progress bar.
        group_scale: how tensors that share a scale agree on it, one of ``group_scale.CHOICES``.

    Returns:
        The scales of the groups that read more than one tensor.

    Raises:
        UserError: no batch came, or an activation was NaN or infinite.
    """
    model.eval()
    calibrate_weights(model)
    groups: dict[str, GroupCalibrator] = {}  # one entry a quantizer, shared ones once
    owners: dict[str, tuple[str, nn.Module]] = {}

    def collector(path: str, name: str, quantizer: nn.Module) -> nn.Module:
        if name == WEIGHT_NAME or quantizer._disabled:
            return nn.Identity()
        key = str(id(quantizer))
        owners.setdefault(key, (path, quantizer))
        return Collector(groups.setdefault(key, GroupCalibrator(method)), place_name(path, name))

    seen = 0
    try:
        with swapped(model, collector):
            for images in tqdm(batches, total=total, desc="Calibrate", unit="batch", leave=False):
                model(images)
                seen += 1
                end_batch(groups.values())
    except ValueError as error:
        raise UserError(f"calibration stopped: {error}; check the checkpoint") from error
    if not seen:
        raise UserError("calibration got no images: check --cocodir or --data and --calib-batches")
    if method == "sqnr":
        probe_gradients(model, groups, batches)
    scales = group_scales(groups, group_scale)
    device = next(model.parameters()).device
    for key, (path, quantizer) in owners.items():
        scale = scales[key]
        if scale is None:  # the forward pass never calls it
            LOG.warning("%s saw no tensor in calibration and is left float", path)
            quantizer.disable()
            continue
        set_amax(quantizer, torch.full((), scale.amax, device=device))  # torch.tensor would wait for the GPU
        advice = scale.advice()
        if advice is not None:
            LOG.warning("Scales: %s", advice)
    return [scale for scale in scales.values() if scale is not None and len(scale.own) > 1]


def probe_gradients(model: nn.Module, groups: dict[str, GroupCalibrator], batches: Iterable[Tensor]) -> None:
    """Give the groups the gradients of the detections.

    Args:
        model: a detection network in eval mode, with the groups' quantizers.
        groups: the id of each activation quantizer to its calibrator, which has seen the images.
        batches: as for ``calibrate_model``.
    """
    probes = {key: GroupProbe([tensor.range for tensor in group.tensors]) for key, group in groups.items()}
    with swapped(model, lambda path, name, quantizer: probes.get(str(id(quantizer)), nn.Identity())):
        fill(probes.values(), model, weighted_outputs(model, BOX_WEIGHT), batches)
    for key, probe in probes.items():
        groups[key].gradients = probe.found()


def calibrate_weights(model: nn.Module) -> None:
    """Set the amax of every weight quantizer to the largest absolute value of each output channel.

    Raises:
        UserError: a weight holds NaN or infinity.
    """
    found = [
        (path, quantizer, channel_amax(module.weight))
        for path, name, module, quantizer in named_quantizers(model)
        if name == WEIGHT_NAME
    ]
    if not found:
        return
    sums = torch.stack([amax.sum() for _, _, amax in found]).tolist()  # one wait for the GPU
    for (path, quantizer, amax), total in zip(found, sums):
        if not math.isfinite(total):
            raise UserError(f"layer {path}: its weight holds NaN or infinity; the checkpoint is damaged")
        set_amax(quantizer, replace_zeros(amax))
