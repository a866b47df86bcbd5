"""Quantized modules, and the registry that says which float module becomes which.

A float module is turned in place (its class is exchanged), so that every reference, hook and attribute that the
upstream code put on it stays.
"""

from __future__ import annotations

from typing import Dict, Tuple, Type

import torch.nn.functional as F
from torch import Tensor, nn

from quantization.quantizer import make_quantizer


class QuantConv2d(nn.Conv2d):
    """Conv2d on a fake-quantized input (per tensor) and weight (per output channel)."""

    def add_quantizers(self) -> None:
        self._input_quantizer = make_quantizer()
        self._weight_quantizer = make_quantizer(axis=0)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return self._conv_forward(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)


class QuantLinear(nn.Linear):
    """Linear on a fake-quantized input (per tensor) and weight (per output feature)."""

    def add_quantizers(self) -> None:
        self._input_quantizer = make_quantizer()
        self._weight_quantizer = make_quantizer(axis=0)

    def forward(self, x: Tensor) -> Tensor:  # (..., C)
        return F.linear(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)


class QuantUpsample(nn.Upsample):
    """Nearest Upsample on a fake-quantized input, so that TensorRT resizes INT8 and the Concat behind it stays INT8."""

    def add_quantizers(self) -> None:
        self._input_quantizer = make_quantizer()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return F.interpolate(self._input_quantizer(x), self.size, self.scale_factor, self.mode)


class QuantAdd(nn.Module):
    """Shortcut addition with both operands fake-quantized.

    With both in INT8 the convolution before it fuses with its activation and the sum is one INT8 layer; with the
    shortcut alone every sum costs an INT8-to-FP16 Reformat (docs/placement.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self._input0_quantizer = make_quantizer()  # the shortcut: in the scale group of the tensor that it reads
        self._input1_quantizer = make_quantizer()  # the branch: a tensor of its own

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return self._input0_quantizer(shortcut) + self._input1_quantizer(branch)


class QuantBottleneck(nn.Module):
    """Upstream's Bottleneck with its sum in a QuantAdd: x + cv2(cv1(x))."""

    cv1: nn.Module
    cv2: nn.Module

    def add_quantizers(self) -> None:
        self.addop = QuantAdd()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        return self.addop(x, self.cv2(self.cv1(x)))


REGISTRY: Dict[Type[nn.Module], Type[nn.Module]] = {
    nn.Conv2d: QuantConv2d,
    nn.Linear: QuantLinear,
    nn.Upsample: QuantUpsample,
}


def quantized_type(module: nn.Module, shortcut_types: Tuple[Type[nn.Module], ...]) -> "Type[nn.Module] | None":
    """The quantized class for ``module``; None if it stays as it is.

    Args:
        module: a float module; its exact type counts, since a subclass may compute something else.
        shortcut_types: upstream's classes that compute ``x + cv2(cv1(x))`` when their ``add`` is true.
    """
    if type(module) in shortcut_types:
        return QuantBottleneck if getattr(module, "add", False) else None
    target = REGISTRY.get(type(module))
    if target is QuantUpsample and module.mode != "nearest":
        return None  # an interpolated value lies between the levels, so Q/DQ does not commute with it
    return target
