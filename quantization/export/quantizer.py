"""What stands in for a quantizer while a model is exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExportQuantizer(nn.Module):
    """Stands in for a calibrated quantizer of either backend while the model is exported; scales are constants.

    Args:
        quantizer: a quantizer with amax; a disabled one passes tensors through.
        onnx_operators: give ONNX's own QuantizeLinear and DequantizeLinear, for the dynamo exporter: torch.export has
            no shape rule for fake quantization in some versions (2.13; 2.15 has it). They compute nothing in torch.
    """

    def __init__(self, quantizer: nn.Module, onnx_operators: bool = False) -> None:
        super().__init__()
        self.high = 2 ** (quantizer._num_bits - 1) - 1
        self.enabled = not quantizer._disabled and quantizer._if_quant
        self.per_channel = quantizer._axis is not None
        self.onnx_operators = onnx_operators
        if self.enabled:
            scale = quantizer.amax.detach().float().reshape(-1) / self.high  # (C,), or (1,) per tensor
            self.register_buffer("scale", scale if self.per_channel else scale.reshape(()))
            self.number = 0.0 if self.per_channel else float(scale)

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return x
        if self.onnx_operators:
            zero = torch.zeros_like(self.scale, dtype=torch.int8)
            attributes = {"axis": 0} if self.per_channel else {}
            operator = torch.onnx.ops.symbolic
            integers = operator("QuantizeLinear", [x, self.scale, zero], attributes, dtype=torch.int8, shape=x.shape)
            return operator("DequantizeLinear", [integers, self.scale, zero], attributes, dtype=x.dtype, shape=x.shape)
        if self.per_channel:
            zero = torch.zeros_like(self.scale, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(x, self.scale, zero, 0, -self.high - 1, self.high)
        return torch.fake_quantize_per_tensor_affine(x, self.number, 0, -self.high - 1, self.high)
