"""Calibration of a model: every quantizer gets its amax from images."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any, Dict, Iterable, Iterator, Mapping, Sized, Tuple, cast

import torch
from torch import Tensor, nn

from quantization.calibration.gradient_ranges import BOX_WEIGHT, GroupProbe, fill, halved
from quantization.calibration.group_ranges import (
    Collector,
    Gradients,
    GroupCalibrator,
    detection_scales,
)
from quantization.calibration.joining import end_batch, join_counts, join_rows
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.placement.scale_groups import place_name
from quantization.progress_bar import progress_bar
from quantization.quantizers.backend import (
    WEIGHT_NAME,
    bits,
    is_enabled,
    named_quantizers,
    set_amax,
    set_enabled,
    swapped,
)
from quantization.quantizers.levels import channel_amax, replace_zeros
from quantization.ranges.group_scales import GroupScale, SharedTensors, group_scales
from quantization.ranges.histograms import HistogramCalibrator
from quantization.upstream.model import largest_stride
from quantization.upstream.outputs import frozen_parameters, weighted_outputs

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
        batches: images (B, 3, H, W), floats in 0..1 on the model's device; with many processes (``distributed``) every
            n-th batch, whose ranges are then those of all batches, exactly.
        method: one of ``options.CALIBRATION_METHODS``; "sqnr" needs a detection network, and reads ``batches`` twice.
        total: number of batches, for the progress bar; None: the length of ``batches``, if it has one.
        group_scale: how tensors that share a scale agree on it, one of ``options.GROUP_SCALES``.

    Returns:
        The scales of the groups that read more than one tensor.

    Raises:
        UserError: no batch came, or a weight or an activation was NaN or infinite.
    """
    model.eval()
    calibrate_weights(model)
    LOG.info("Calibrating by %s", method)  # the bars of both passes are for terminals
    with repeatable():
        groups, owners, images = collect(model, batches, method, total)
        gradients = probe_gradients(model, groups, batches, images) if method == "sqnr" else None
    # quantizers have other ids in other processes, but one order
    other = None if gradients is None else detection_scales(groups, group_scale, gradients)
    found = RANKS.main_only(lambda: list(group_scales(groups, group_scale, other).values()))
    scales = dict(zip(groups, found))
    set_scales(owners, scales, next(model.parameters()).device)
    return [scale for scale in found if scale is not None and len(scale.own) > 1]


Owners = Dict[str, Tuple[str, nn.Module]]  # group name to its first place's module path, and its quantizer


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Context in which cuDNN takes the same, deterministic algorithms in every process."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def set_scales(
    owners: Owners, scales: Mapping[str, GroupScale | None], device: torch.device, advise: bool = True
) -> None:
    """Give every quantizer its group's amax; one that saw no tensor is switched off.

    Args:
        owners: see ``collect``.
        scales: by the same names.
        device: of the model.
        advise: warn of groups that lose much by sharing.
    """
    for key, (path, quantizer) in owners.items():
        scale = scales[key]
        if scale is None:  # the forward pass never calls it
            LOG.warning("%s saw no tensor in calibration and is left float", path)
            set_enabled(quantizer, False)
            continue
        set_amax(quantizer, replace_zeros(torch.full((), scale.amax, device=device)))  # torch.tensor waits for the GPU
        advice = scale.advice()
        if advice is not None and advise:
            LOG.warning("Scales: %s", advice)


def collect(
    model: nn.Module, batches: Iterable[Tensor], method: str, total: int | None
) -> tuple[dict[str, GroupCalibrator], Owners, int]:
    """Show every tensor that an enabled activation quantizer reads to its group's calibrator.

    Args:
        model: quantized, in eval mode.
        batches: as for ``calibrate_model``.
        method: one of ``options.CALIBRATION_METHODS``.
        total: see ``calibrate_model``.

    Returns:
        The calibrators, one per quantizer (shared ones once), and whose they are, by the same names; the number of images,
        those of all processes.

    Raises:
        UserError: no batch came, or an activation was NaN or infinite.
    """
    groups: dict[str, GroupCalibrator] = {}
    owners: Owners = {}

    def collector(path: str, name: str, quantizer: nn.Module) -> nn.Module:
        if name == WEIGHT_NAME or not is_enabled(quantizer):
            return nn.Identity()
        key = str(id(quantizer))
        owners.setdefault(key, (path, quantizer))
        return Collector(groups.setdefault(key, GroupCalibrator(method, bits(quantizer))), place_name(path, name))

    try:
        with swapped(model, collector):
            seen = show(model, groups, batches, total)
    except ValueError as error:
        raise UserError(f"calibration stopped: {error}; check the checkpoint") from error
    if not seen:
        raise UserError("calibration got no images: check --cocodir or --data and --calib-batches")
    join_counts(list(groups.values()))
    return groups, owners, seen


def show(model: nn.Module, groups: Mapping[str, GroupCalibrator], batches: Iterable[Tensor], total: int | None) -> int:
    """Show ``batches`` to the calibrators that sit in ``model``; the number of images, of all processes."""
    if total is None and isinstance(batches, Sized):
        total = len(batches)  # this process's: it goes through them in step with the others
    with progress_bar(total=total, title="Calibrate", unit="batch") as bar:
        seen = 0
        for images, lengths in RANKS.rounds(batches):
            if images is not None:
                model(images)
            end_batch(list(groups.values()))
            seen += sum(lengths)
            bar.update()
    return seen


def probe_gradients(
    model: nn.Module, groups: Mapping[str, SharedTensors], batches: Iterable[Tensor], images: int
) -> Gradients:
    """The gradients of the detections for the tensors of each group, by its name.

    Args:
        model: a detection network in eval mode, with the groups' quantizers.
        groups: the id of each activation quantizer to its calibrator, which has seen the images.
        batches: as for ``calibrate_model``.
        images: how many there are.
    """
    device, stride = next(model.parameters()).device, largest_stride(model)
    smaller = (halved(batch, stride) for batch in batches)
    probes = {
        key: GroupProbe(
            [tensor.range if isinstance(tensor, HistogramCalibrator) else 0.0 for tensor in group.tensors], group.bits
        )
        for key, group in groups.items()
    }
    stand_ins = swapped(model, lambda path, name, quantizer: probes.get(str(id(quantizer)), nn.Identity()))
    with stand_ins, frozen_parameters(model):
        order = fill(probes.values(), weighted_outputs(model, BOX_WEIGHT), smaller, images)
    join_rows([histogram for probe in probes.values() for histogram in probe.histograms if histogram], order, device)
    return {key: probe.found() for key, probe in probes.items()}


def calibrate_weights(model: nn.Module) -> None:
    """Set the amax of every weight quantizer to the largest absolute value of each output channel.

    Raises:
        UserError: a weight holds NaN or infinity.
    """
    found = [
        (path, quantizer, channel_amax(cast(Tensor, module.weight)))
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
