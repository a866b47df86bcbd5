"""Quantized modules put into a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantization.placement.activation_pairs import write_apart
from quantization.placement.policy import SUM, Placement, choose_placement, quantized_types
from quantization.quantizers.modules import ShortcutBlock


def replace_to_quantization_module(model: nn.Module, placement: Placement | None = None) -> list[str]:
    """Turn convolutions, linear layers, nearest Upsamples and shortcut sums into quantized modules, in place.

    Args:
        model: a fused float model.
        placement: which of them; None: the default, ``choose_placement(model)``.

    Returns:
        Paths of the modules that now hold quantizers.

    Raises:
        UserError: see ``choose_placement``.
    """
    placement = placement or choose_placement(model)
    if placement.paired:
        write_apart(model)
    quantized: list[str] = []
    for path, target in quantized_types(model, placement).items():
        module: Any = model.get_submodule(path)
        device = next(module.parameters(), torch.empty(0)).device
        module.__class__ = target
        module.add_quantizers()
        module.to(device)
        quantized.append(f"{path}.{SUM}" if issubclass(target, ShortcutBlock) else path)
    return quantized
