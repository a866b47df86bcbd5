"""Quantized modules put into a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantization.errors import UserError
from quantization.placement.policy import Placement, choose_placement, quantizable
from quantization.quantizers.modules import QuantConv2d, QuantInputConv2d, ShortcutBlock


def replace_to_quantization_module(model: nn.Module, placement: Placement | None = None) -> list[str]:
    """Turn convolutions, linear layers, nearest Upsamples and shortcut sums into quantized modules, in place.

    Args:
        model: a fused float model.
        placement: which of them; None: the default, ``choose_placement(model)``.

    Returns:
        Paths of the modules that now hold quantizers.

    Raises:
        UserError: see ``choose_placement``; or nothing is left to quantize.
    """
    placement = placement or choose_placement(model)
    quantized: list[str] = []
    for path, target in quantizable(model).items():
        module: Any = model.get_submodule(path)
        if path in placement.float_layers or not (placement.extras or hasattr(module, "weight")):
            continue
        if path in placement.float_weights:
            if target is not QuantConv2d:
                continue
            target = QuantInputConv2d
        device = next(module.parameters(), torch.empty(0)).device
        module.__class__ = target
        module.add_quantizers()
        module.to(device)
        quantized.append(path + ".addop" if issubclass(target, ShortcutBlock) else path)
    if not quantized:
        raise UserError("--ignore-policy leaves nothing to quantize: every layer would stay in float")
    return quantized
