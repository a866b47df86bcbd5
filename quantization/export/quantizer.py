"""What stands in for a quantizer while a model is exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantization.quantizers.backend import bits, get_scale, is_per_channel, is_quantizing
from quantization.ranges.levels import highest_level


class ExportQuantizer(nn.Module):
    """Stands in for a calibrated quantizer of either backend while the model is exported; scales are constants.

    Args:
        quantizer: a quantizer with amax; a disabled one passes tensors through.
        onnx_operators: give ONNX's own QuantizeLinear and DequantizeLinear, for the dynamo exporter: torch.export has
            no shape rule for fake quantization in some versions (2.13; 2.15 has it). They compute nothing in torch.
    """

    scale: Tensor

    def __init__(self, quantizer: nn.Module, onnx_operators: bool = False) -> None:
        super().__init__()
        self.high: int = highest_level(bits(quantizer))
        self.enabled = is_quantizing(quantizer)
        self.per_channel = is_per_channel(quantizer)
        self.onnx_operators = onnx_operators
        if self.enabled:
            scale = get_scale(quantizer).reshape(-1)  # (C,), or (1,) per tensor
            self.register_buffer("scale", scale if self.per_channel else scale.reshape(()))
            self.number = 0.0 if self.per_channel else float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` quantized and dequantized; any shape."""
        if not self.enabled:
            return x
        if self.onnx_operators:
            return self.onnx_pair(x)
        if self.per_channel:
            zero = torch.zeros_like(self.scale, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(x, self.scale, zero, 0, -self.high - 1, self.high)
        return torch.fake_quantize_per_tensor_affine(x, self.number, 0, -self.high - 1, self.high)

    def onnx_pair(self, x: Tensor) -> Tensor:
        """QuantizeLinear and DequantizeLinear as operators of the exported graph."""
        zero = torch.zeros_like(self.scale, dtype=torch.int8)
        attributes: dict[str, Any] = {"axis": 0} if self.per_channel else {}
        operator = torch.onnx.ops.symbolic
        integers = operator("QuantizeLinear", [x, self.scale, zero], attributes, dtype=torch.int8, shape=x.shape)
        return operator("DequantizeLinear", [integers, self.scale, zero], attributes, dtype=x.dtype, shape=x.shape)
