"""Quantizers found, switched on and off, and listed."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

import torch
from torch import nn

from quantization.quantizers.backend import is_quantizer, named_quantizers, set_amax
from quantization.quantizers.modules import QuantAdd


def quantizers_of(model: nn.Module) -> list[nn.Module]:
    """All distinct quantizers below ``model``; ``model`` itself if it is one."""
    return [module for module in model.modules() if is_quantizer(module)]


@contextlib.contextmanager
def _with_flag(quantizers: list[nn.Module], flag: str, value: bool) -> Iterator[None]:
    before = [getattr(quantizer, flag) for quantizer in quantizers]
    try:
        for quantizer in quantizers:
            setattr(quantizer, flag, value)
        yield
    finally:
        for quantizer, old in zip(quantizers, before):
            setattr(quantizer, flag, old)


def disable_quantization(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Context in which every quantizer below ``model`` passes tensors through; restores what was, also after errors."""
    return _with_flag(quantizers_of(model), "_disabled", True)


def enable_quantization(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Context in which every quantizer below ``model`` works; restores what was, also after errors."""
    return _with_flag(quantizers_of(model), "_disabled", False)


def have_quantizers(model: nn.Module) -> bool:
    """Whether any quantizer is below ``model``."""
    return any(is_quantizer(module) for module in model.modules())


def uncalibrated(model: nn.Module) -> list[str]:
    """Paths of the enabled quantizers without a usable amax (missing, NaN, infinite or not above zero)."""
    bad = []
    for path, name, _, quantizer in named_quantizers(model):
        amax = quantizer.amax
        if not quantizer._disabled and (amax is None or not bool(((amax > 0) & torch.isfinite(amax)).all())):
            bad.append(f"{path}.{name}")
    return bad


def shortcut_sums(model: nn.Module) -> list[str]:
    """Paths of the quantized shortcut sums."""
    return [path for path, module in model.named_modules() if isinstance(module, QuantAdd)]


def amax_table(model: nn.Module) -> dict[str, Any]:
    """Amax of every input quantizer by place (a number) and of every weight (least and largest)."""
    table: dict[str, Any] = {}
    for path, name, _, tensor_quantizer in named_quantizers(model):
        amax = tensor_quantizer.amax
        if amax is None:
            continue
        table[f"{path}.{name}"] = float(amax) if amax.numel() == 1 else [float(amax.min()), float(amax.max())]
    return table


def amax_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Amax of every quantizer that has one, by place."""
    found = {f"{path}.{name}": quantizer.amax for path, name, _, quantizer in named_quantizers(model)}
    return {place: amax.detach() for place, amax in found.items() if amax is not None}


def set_amax_tensors(model: nn.Module, table: dict[str, torch.Tensor]) -> None:
    """Give every quantizer what ``amax_tensors`` found at its place in a model with the same quantizers."""
    device = next(model.parameters()).device
    for path, name, _, quantizer in named_quantizers(model):
        if f"{path}.{name}" in table:
            set_amax(quantizer, table[f"{path}.{name}"].to(device))
