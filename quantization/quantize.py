"""Passes over a model: put quantizers in, give scale groups one quantizer, calibrate, switch on and off."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization import calib, rules, upstream
from quantization.errors import UserError
from quantization.group_scale import Collector, GroupCalibrator, GroupScale, end_batch, group_scales
from quantization.head_outputs import weighted_outputs
from quantization.modules import (ATTENTION, ATTENTION_REASON, SHORTCUTS, QuantAdd, QuantConv2d, QuantInputConv2d,
                                  ShortcutBlock, quantized_type)
from quantization.output_error import BOX_WEIGHT, GroupProbe, fill
from quantization.placement import Placement, choose_placement
from quantization.quantizer import WEIGHT_NAME, is_quantizer, named_quantizers, select_backend, set_amax, swapped

LOG = logging.getLogger("quantization")


def initialize(backend: Optional[str] = None) -> str:
    """Select the quantizer backend and return its name; see ``quantizer.select_backend``."""
    return select_backend(backend)


def ignored_modules(model: nn.Module, patterns: Sequence[str]) -> Set[str]:
    """Paths of the modules that the patterns leave in float, with all modules below them.

    Args:
        model: the float model.
        patterns: regular expressions; each is matched against whole module paths.

    Raises:
        UserError: a pattern is no regular expression, or matches no module.
    """
    paths = [path for path, _ in model.named_modules() if path]
    ignored: Set[str] = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"--ignore-policy {pattern!r} is no regular expression: {error}") from error
        matched = [path for path in paths if expression.fullmatch(path)]
        if not matched:
            raise UserError(f"--ignore-policy {pattern!r} matches no module: it must match a whole path such as "
                            f"{paths[len(paths) // 2]!r}; use .* for a part")
        roots = set(matched)
        ignored.update(path for path in paths if any(path[:end] in roots for end in prefix_ends(path)))
    return ignored


def prefix_ends(path: str) -> List[int]:
    """Where the prefixes of a dotted path end, the whole path included."""
    return [index for index, letter in enumerate(path) if letter == "."] + [len(path)]


def attention_blocks(model: nn.Module) -> List[str]:
    """Paths of the outermost attention blocks. Their linear layers stay float; a convolution in them does not."""
    kinds = tuple(upstream.block_types(ATTENTION))
    blocks: List[str] = []
    for path, module in model.named_modules():
        if isinstance(module, kinds) and not any(path.startswith(block + ".") for block in blocks):
            blocks.append(path)
    return blocks


def replace_to_quantization_module(model: nn.Module, placement: Optional[Placement] = None) -> List[str]:
    """Turn convolutions, linear layers, nearest Upsamples and shortcut sums into quantized modules, in place.

    Args:
        model: a fused float model.
        placement: which of them; None: the default, ``choose_placement(model)``.

    Returns:
        Paths of the modules that now hold quantizers.

    Raises:
        UserError: see ``ignored_modules``; or nothing is left to quantize.
    """
    placement = placement or choose_placement(model)
    ignored = ignored_modules(model, placement.float_layers)
    inputs_only = ignored_modules(model, placement.float_weights)
    for block in attention_blocks(model):
        layers = {path for path, module in model.named_modules()
                  if path.startswith(block + ".") and type(module) is nn.Linear}
        LOG.info("%s: %d linear layers are left float: %s", block, len(layers), ATTENTION_REASON)
        ignored |= layers
    shortcut_types = upstream.block_types(SHORTCUTS)
    quantized: List[str] = []
    for path, module in list(model.named_modules()):
        target = None if path in ignored else quantized_type(module, shortcut_types)
        if target is not None and path in inputs_only:
            target = QuantInputConv2d if target is QuantConv2d else None
        if target is None or not (placement.extras or hasattr(module, "weight")):
            continue
        device = next(module.parameters(), torch.empty(0)).device
        module.__class__ = target
        module.add_quantizers()
        module.to(device)
        quantized.append(path + ".addop" if issubclass(target, ShortcutBlock) else path)
    if not quantized:
        raise UserError(f"--ignore-policy {' '.join(placement.float_layers)} leaves nothing to quantize")
    return quantized


def apply_custom_rules_to_quantizer(model: nn.Module, export_onnx: rules.ExportFunction) -> List[rules.ScaleGroup]:
    """Give every scale group of ``model`` one quantizer, so that Q/DQ costs TensorRT nothing (quantization.rules).

    Args:
        model: from ``replace_to_quantization_module``, before calibration.
        export_onnx: writes a model to a path, as ``lambda model, file: export.export_graph(model, file, (64, 64))``.

    Returns:
        All groups, also those of one quantizer.
    """
    groups = rules.find_scale_groups(model, export_onnx)
    rules.share_quantizers(model, groups)
    return groups


@torch.no_grad()
def calibrate_model(model: nn.Module, batches: Iterable[Tensor], method: str = "mse", total: Optional[int] = None,
                    group_scale: str = "error") -> List[GroupScale]:
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
    groups: Dict[str, GroupCalibrator] = {}  # one entry a quantizer, shared ones once
    owners: Dict[str, Tuple[str, nn.Module]] = {}

    def collector(path: str, name: str, quantizer: nn.Module) -> nn.Module:
        if name == WEIGHT_NAME or quantizer._disabled:
            return nn.Identity()
        key = str(id(quantizer))
        owners.setdefault(key, (path, quantizer))
        return Collector(groups.setdefault(key, GroupCalibrator(method)), rules.place_name(path, name))

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


def probe_gradients(model: nn.Module, groups: Dict[str, GroupCalibrator], batches: Iterable[Tensor]) -> None:
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
    found = [(path, quantizer, calib.channel_amax(module.weight))
             for path, name, module, quantizer in named_quantizers(model) if name == WEIGHT_NAME]
    if not found:
        return
    sums = torch.stack([amax.sum() for _, _, amax in found]).tolist()  # one wait for the GPU
    for (path, quantizer, amax), total in zip(found, sums):
        if not math.isfinite(total):
            raise UserError(f"layer {path}: its weight holds NaN or infinity; the checkpoint is damaged")
        set_amax(quantizer, calib.replace_zeros(amax))


def quantizers_of(model: nn.Module) -> List[nn.Module]:
    """All distinct quantizers below ``model``; ``model`` itself if it is one."""
    return [module for module in model.modules() if is_quantizer(module)]


@contextlib.contextmanager
def _with_flag(quantizers: List[nn.Module], flag: str, value: bool) -> Iterator[None]:
    before = [getattr(quantizer, flag) for quantizer in quantizers]
    try:
        for quantizer in quantizers:
            setattr(quantizer, flag, value)
        yield
    finally:
        for quantizer, old in zip(quantizers, before):
            setattr(quantizer, flag, old)


def disable_quantization(model: nn.Module) -> "contextlib.AbstractContextManager[None]":
    """Context in which every quantizer below ``model`` passes tensors through; restores what was, also after errors."""
    return _with_flag(quantizers_of(model), "_disabled", True)


def enable_quantization(model: nn.Module) -> "contextlib.AbstractContextManager[None]":
    """Context in which every quantizer below ``model`` works; restores what was, also after errors."""
    return _with_flag(quantizers_of(model), "_disabled", False)


def have_quantizers(model: nn.Module) -> bool:
    """Whether any quantizer is below ``model``."""
    return any(is_quantizer(module) for module in model.modules())


def uncalibrated(model: nn.Module) -> List[str]:
    """Paths of the enabled quantizers without a usable amax (missing, NaN, infinite or not above zero)."""
    bad = []
    for path, name, _, quantizer in named_quantizers(model):
        amax = quantizer.amax
        if not quantizer._disabled and (amax is None or not bool(((amax > 0) & torch.isfinite(amax)).all())):
            bad.append(f"{path}.{name}")
    return bad


def shortcut_sums(model: nn.Module) -> List[str]:
    """Paths of the quantized shortcut sums."""
    return [path for path, module in model.named_modules() if isinstance(module, QuantAdd)]
