"""Quantized modules put into a model."""

from __future__ import annotations

import logging

import torch
from torch import nn

from quantization.errors import UserError
from quantization.placement.policy import Placement, choose_placement, ignored_modules
from quantization.quantizers.modules import (
    ATTENTION,
    ATTENTION_REASON,
    SHORTCUTS,
    QuantConv2d,
    QuantInputConv2d,
    ShortcutBlock,
    quantized_type,
)
from quantization.upstream.model import block_types

LOG = logging.getLogger("quantization")


def attention_blocks(model: nn.Module) -> list[str]:
    """Paths of the outermost attention blocks. Their linear layers stay float; a convolution in them does not."""
    kinds = tuple(block_types(ATTENTION))
    blocks: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, kinds) and not any(path.startswith(block + ".") for block in blocks):
            blocks.append(path)
    return blocks


def replace_to_quantization_module(model: nn.Module, placement: Placement | None = None) -> list[str]:
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
        layers = {
            path for path, module in model.named_modules() if path.startswith(block + ".") and type(module) is nn.Linear
        }
        LOG.info("%s: %d linear layers are left float: %s", block, len(layers), ATTENTION_REASON)
        ignored |= layers
    shortcut_types = block_types(SHORTCUTS)
    quantized: list[str] = []
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
