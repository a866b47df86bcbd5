"""Quantizers found, switched on and off, and listed."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from torch import Tensor, nn

from quantization.quantizers.backend import get_amax, is_enabled, is_quantizer, named_quantizers, set_amax, set_enabled
from quantization.quantizers.levels import usable
from quantization.quantizers.modules import QuantAdd


def quantizers_of(model: nn.Module) -> list[nn.Module]:
    """All distinct quantizers below ``model``; ``model`` itself if it is one."""
    return [module for module in model.modules() if is_quantizer(module)]


@contextlib.contextmanager
def disable_quantization(model: nn.Module) -> Iterator[None]:
    """Context in which every quantizer below ``model`` passes tensors through; restores what was, also after errors."""
    before = [(quantizer, is_enabled(quantizer)) for quantizer in quantizers_of(model)]
    try:
        for quantizer, _ in before:
            set_enabled(quantizer, False)
        yield
    finally:
        for quantizer, on in before:
            set_enabled(quantizer, on)


def have_quantizers(model: nn.Module) -> bool:
    """Whether any quantizer is below ``model``."""
    return any(is_quantizer(module) for module in model.modules())


def uncalibrated(model: nn.Module) -> list[str]:
    """Paths of the enabled quantizers without a usable amax: missing, or refused by ``levels.usable``."""
    bad = []
    for path, name, _, quantizer in named_quantizers(model):
        amax = get_amax(quantizer)
        if is_enabled(quantizer) and (amax is None or not bool(usable(amax).all())):
            bad.append(f"{path}.{name}")
    return bad


def shortcut_sums(model: nn.Module) -> list[str]:
    """Paths of the quantized shortcut sums."""
    return [path for path, module in model.named_modules() if isinstance(module, QuantAdd)]


def amax_table(model: nn.Module) -> dict[str, Any]:
    """The amax of every input quantizer by place (a number) and of every weight (smallest and largest)."""
    table: dict[str, Any] = {}
    for path, name, _, quantizer in named_quantizers(model):
        amax = get_amax(quantizer)
        if amax is not None:
            table[f"{path}.{name}"] = float(amax) if amax.numel() == 1 else [float(amax.min()), float(amax.max())]
    return table


def amax_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Amax of every quantizer that has one, by place."""
    found = {f"{path}.{name}": get_amax(quantizer) for path, name, _, quantizer in named_quantizers(model)}
    return {place: amax.detach() for place, amax in found.items() if amax is not None}


def set_amax_tensors(model: nn.Module, table: dict[str, Tensor]) -> None:
    """Give every quantizer what ``amax_tensors`` found at its place in a model with the same quantizers."""
    device = next(model.parameters()).device
    for path, name, _, quantizer in named_quantizers(model):
        if f"{path}.{name}" in table:
            set_amax(quantizer, table[f"{path}.{name}"].to(device))
