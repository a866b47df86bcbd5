"""Quantized modules, and the registry that says which float module becomes which.

A float module is turned in place (its class is exchanged), so that every reference, hook and attribute that the
upstream code put on it stays.
"""

from __future__ import annotations

from typing import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from quantization.quantizers.backend import make_quantizer


class QuantConv2d(nn.Conv2d):
    """Conv2d on a fake-quantized input (per tensor) and weight (per output channel)."""

    _input_quantizer: nn.Module
    _weight_quantizer: nn.Module

    def add_quantizers(self) -> None:
        """Make the quantizers that ``forward`` uses."""
        self._input_quantizer = make_quantizer()
        self._weight_quantizer = make_quantizer(axis=0)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x`` (B, C, H, W) with quantized operands."""
        return self._conv_forward(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)


class QuantOutputConv2d(QuantConv2d):
    """QuantConv2d whose output is fake-quantized (per tensor) too: for what TensorRT does not fuse with its activation."""

    _output_quantizer: nn.Module

    def add_quantizers(self) -> None:
        """Make the quantizers that ``forward`` uses."""
        super().add_quantizers()
        self._output_quantizer = make_quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x`` (B, C, H, W) with quantized operands, quantized."""
        y: Tensor = self._output_quantizer(super().forward(x))
        return y


class QuantInputConv2d(nn.Conv2d):
    """Conv2d on a fake-quantized input with its weight in float: it computes in FP16.

    For the network's last convolutions: the layer before them can emit INT8, fused with its activation, and one
    Reformat to FP16 remains.
    """

    _input_quantizer: nn.Module

    def add_quantizers(self) -> None:
        """Make the quantizers that ``forward`` uses."""
        self._input_quantizer = make_quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x`` (B, C, H, W), quantized, with the float weight."""
        return self._conv_forward(self._input_quantizer(x), self.weight, self.bias)


class QuantLinear(nn.Linear):
    """Linear on a fake-quantized input (per tensor) and weight (per output feature)."""

    _input_quantizer: nn.Module
    _weight_quantizer: nn.Module

    def add_quantizers(self) -> None:
        """Make the quantizers that ``forward`` uses."""
        self._input_quantizer = make_quantizer()
        self._weight_quantizer = make_quantizer(axis=0)

    def forward(self, x: Tensor) -> Tensor:
        """The product of ``x`` (..., C) with quantized operands."""
        return F.linear(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)


class QuantUpsample(nn.Upsample):
    """Nearest Upsample on a fake-quantized input, so that TensorRT resizes INT8 and the Concat behind it stays INT8."""

    _input_quantizer: nn.Module

    def add_quantizers(self) -> None:
        """Make the quantizers that ``forward`` uses."""
        self._input_quantizer = make_quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W), quantized, at the new size."""
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
        """The sum of both operands, quantized, of any one shape."""
        return self._input0_quantizer(shortcut) + self._input1_quantizer(branch)


class ShortcutBlock(nn.Module):
    """Base of upstream's blocks whose forward ends in a sum, with that sum in a QuantAdd."""

    addop: QuantAdd

    def add_quantizers(self) -> None:
        """Give the block its sum, with quantizers."""
        self.addop = QuantAdd()


class QuantBottleneck(ShortcutBlock):
    """Two convolutions and the input: x + cv2(cv1(x))."""

    cv1: nn.Module
    cv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """The block on ``x`` (B, C, H, W)."""
        return self.addop(x, self.cv2(self.cv1(x)))


class QuantRes(ShortcutBlock):
    """Three convolutions and the input: x + cv3(cv2(cv1(x)))."""

    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """The block on ``x`` (B, C, H, W)."""
        return self.addop(x, self.cv3(self.cv2(self.cv1(x))))


class QuantGhostBottleneck(ShortcutBlock):
    """Two branches: shortcut(x) + conv(x); the shortcut is the input itself where the stride is 1."""

    conv: nn.Module
    shortcut: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """The block on ``x`` (B, C, H, W)."""
        return self.addop(self.shortcut(x), self.conv(x))


class QuantShortcut(ShortcutBlock):
    """A layer of the configuration that sums two others; the nearer one comes first."""

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """The sum of two tensors (B, C, H, W)."""
        return self.addop(x[1], x[0])


class QuantFoldcut(ShortcutBlock):
    """The sum of a tensor's halves."""

    d: int  # the dimension of the halves

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B, 2 C, H, W) to (B, C, H, W) for ``d`` 1."""
        return self.addop(*x.chunk(2, self.d))


REGISTRY: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: QuantConv2d,  # grouped and depthwise too
    nn.Linear: QuantLinear,
    nn.Upsample: QuantUpsample,
}

# upstream's classes with a sum, by name: upstream is imported by upstream.py only
SHORTCUTS: dict[str, type[nn.Module]] = {
    "Bottleneck": QuantBottleneck,
    "RepBottleneck": QuantBottleneck,
    "CrossConv": QuantBottleneck,
    "Res": QuantRes,
    "RepRes": QuantRes,
    "ResX": QuantRes,
    "RepResX": QuantRes,
    "GhostBottleneck": QuantGhostBottleneck,
    "Ghost": QuantGhostBottleneck,
    "Shortcut": QuantShortcut,
    "Foldcut": QuantFoldcut,
}

# upstream's attention blocks, by name: their linear layers stay float (ATTENTION_REASON)
ATTENTION = ("TransformerBlock", "TransformerLayer", "SwinTransformerBlock", "SwinTransformer2Block")
ATTENTION_REASON = (
    "attention multiplies, sums and takes its softmax in float, so an INT8 linear layer in it would cost a "
    "conversion at either end"
)


def quantized_type(module: nn.Module, shortcut_types: Mapping[type[nn.Module], str]) -> type[nn.Module] | None:
    """The quantized class for ``module``; None if it stays as it is.

    Args:
        module: a float module; its exact type counts, since a subclass may compute something else.
        shortcut_types: upstream's classes with a sum, and their names in ``SHORTCUTS``. One with an attribute ``add``
            sums only where that is true.
    """
    if type(module) in shortcut_types:
        return SHORTCUTS[shortcut_types[type(module)]] if getattr(module, "add", True) else None
    target = REGISTRY.get(type(module))
    if isinstance(module, nn.Upsample) and module.mode != "nearest":
        return None  # an interpolated value lies between the levels, so Q/DQ does not commute with it
    return target
