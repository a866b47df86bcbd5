"""How much of a network computes in INT8: the share of the multiply-accumulates of its convolutions and linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantization.quantizers.backend import INPUT_NAMES, WEIGHT_NAME, is_enabled


def multiply_accumulates(model: nn.Module, image: Tensor) -> dict[nn.Module, int]:
    """Multiply-accumulates of each convolution and linear layer in one pass.

    Args:
        model: in eval mode, quantized or not.
        image: (1, 3, H, W), floats in 0..1 on the model's device.
    """
    counts: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        counts[module] = counts.get(module, 0) + output.numel() * weight[0].numel()

    hooks = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def int8_share(counts: dict[nn.Module, int]) -> float:
    """The share, 0 to 1, of those whose input and weight are quantized now.

    Args:
        counts: from ``multiply_accumulates``.
    """
    quantized = sum(
        count for module, count in counts.items() if _on(module, INPUT_NAMES[0]) and _on(module, WEIGHT_NAME)
    )
    return quantized / max(1, sum(counts.values()))


def _on(module: nn.Module, name: str) -> bool:
    quantizer = getattr(module, name, None)
    return quantizer is not None and is_enabled(quantizer)
