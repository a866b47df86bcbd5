"""Passes over a model: put quantizers in, give scale groups one quantizer, calibrate, switch on and off."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Iterable, Iterator, List, Optional, Sequence, Set

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization import calib, rules, upstream
from quantization.errors import UserError
from quantization.modules import QuantAdd, QuantBottleneck, quantized_type
from quantization.quantizer import WEIGHT_NAME, is_quantizer, named_quantizers, select_backend, set_amax

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


def replace_to_quantization_module(model: nn.Module, ignore_policy: Optional[Sequence[str]] = None) -> List[str]:
    """Turn convolutions, linear layers, nearest Upsamples and shortcut sums into quantized modules, in place.

    Args:
        model: a fused float model.
        ignore_policy: regular expressions for modules to leave in float; None: the detect head alone.

    Returns:
        Paths of the modules that now hold quantizers.

    Raises:
        UserError: see ``ignored_modules``; or nothing is left to quantize.
    """
    patterns = [re.escape(upstream.head_path(model))] if ignore_policy is None else list(ignore_policy)
    ignored = ignored_modules(model, patterns)
    shortcut_types = upstream.shortcut_types()
    quantized: List[str] = []
    for path, module in list(model.named_modules()):
        target = None if path in ignored else quantized_type(module, shortcut_types)
        if target is None:
            continue
        device = next(module.parameters(), torch.empty(0)).device
        module.__class__ = target
        module.add_quantizers()
        module.to(device)
        quantized.append(path + ".addop" if target is QuantBottleneck else path)
    if not quantized:
        raise UserError(f"--ignore-policy {' '.join(patterns)} leaves nothing to quantize")
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
def calibrate_model(model: nn.Module, batches: Iterable[Tensor], method: str = "mse",
                    total: Optional[int] = None) -> None:
    """Set the amax of every quantizer: weights by their largest value, activations by ``method`` over ``batches``.

    Args:
        model: quantized; left in eval mode.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        method: one of ``calib.METHODS``.
        total: number of batches, for the progress bar.

    Raises:
        UserError: no batch came, or an activation was NaN or infinite.
    """
    model.eval()
    activations = {}  # one entry a quantizer, shared ones once
    for path, name, module, quantizer in named_quantizers(model):
        if name == WEIGHT_NAME:
            weights = calib.MaxCalibrator(axis=0)
            try:
                weights.collect(module.weight)
            except ValueError as error:
                raise UserError(f"layer {path}: its weight holds NaN or infinity; the checkpoint is damaged") from error
            set_amax(quantizer, weights.compute_amax())
        else:
            activations.setdefault(id(quantizer), (path, quantizer))
    for path, quantizer in activations.values():
        quantizer._calibrator = calib.make_calibrator(method)
        quantizer.enable_calib()
    seen = 0
    try:
        with disable_fake_quant(model):
            for images in tqdm(batches, total=total, desc="Calibrate", unit="batch", leave=False):
                model(images)
                seen += 1
    except ValueError as error:
        raise UserError(f"calibration stopped: {error}; check the checkpoint") from error
    finally:
        for _, quantizer in activations.values():
            quantizer.disable_calib()
    if not seen:
        raise UserError("calibration got no images: check --cocodir or --data and --calib-batches")
    amax = calib.compute_amax_all({str(key): entry[1]._calibrator for key, entry in activations.items()})
    device = next(model.parameters()).device
    for key, (path, quantizer) in activations.items():
        value = amax[str(key)]
        quantizer._calibrator = None
        if value is None:  # the forward pass never calls it
            LOG.warning("%s saw no tensor in calibration and is left float", path)
            quantizer.disable()
        else:
            set_amax(quantizer, value.to(device))


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


def disable_fake_quant(model: nn.Module) -> "contextlib.AbstractContextManager[None]":
    """Context in which quantizers may calibrate but do not quantize; restores what was, also after errors."""
    return _with_flag(quantizers_of(model), "_if_quant", False)


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
