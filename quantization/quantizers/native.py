"""TensorQuantizer on torch's own fake-quantize operators, with pytorch-quantization's interface.

It trains (straight-through estimator), runs on a CPU and a GPU, exports to QuantizeLinear/DequantizeLinear with both
ONNX exporters and pickles. Nothing is compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantization.ranges.levels import BITS, highest_level


def checked_bits(width: int) -> int:
    """``width``, if an INT8 engine can represent it; a ValueError otherwise."""
    if not 2 <= width <= BITS:
        raise ValueError(f"num_bits is {width}: 2 to {BITS} can be represented in an INT8 engine")
    return width


class QuantDescriptor:
    """How a tensor is quantized.

    Args:
        num_bits: width of the integer; symmetric, signed.
        axis: None for one scale per tensor, 0 for one per slice along axis 0 (per output channel of a weight).

    Raises:
        ValueError: the width or the axis is not supported.
    """

    def __init__(self, num_bits: int = BITS, axis: int | tuple[int, ...] | None = None) -> None:
        self.num_bits = checked_bits(num_bits)
        if axis not in (None, 0, (0,)):
            raise ValueError(f"axis is {axis}: None (per tensor) and 0 (per output channel) are supported")
        self.axis = None if axis is None else 0


class TensorQuantizer(nn.Module):
    """Fake-quantizes a tensor: ``dequantize(quantize(x))`` with scale = amax / 127, zero point 0, range -128..127.

    The scale is what ONNX and TensorRT use; see "Quantization scheme" in the TensorRT documentation. Gradients pass
    unchanged inside the range and are zero outside it (straight-through estimator, Bengio et al. 2013).
    """

    use_fb_fake_quant = True  # always: kept so that code written for pytorch-quantization can set it
    _amax: Tensor | None

    def __init__(
        self, quant_desc: QuantDescriptor | None = None, disabled: bool = False, if_quant: bool = True
    ) -> None:
        super().__init__()
        desc = quant_desc if quant_desc is not None else QuantDescriptor()
        self._num_bits, self._axis = desc.num_bits, desc.axis
        self._disabled, self._if_quant = disabled, if_quant
        self.register_buffer("_amax", None)

    @property
    def num_bits(self) -> int:
        """Width of the integer."""
        return self._num_bits

    @property
    def axis(self) -> int | None:
        """None: one scale per tensor; 0: one per slice along axis 0."""
        return self._axis

    @property
    def amax(self) -> Tensor | None:
        """Largest absolute value that is represented: shape () or (C, 1, ...); None before calibration."""
        return self._amax

    @amax.setter
    def amax(self, value: float | Tensor) -> None:
        value = torch.as_tensor(value, dtype=torch.float32).detach().clone()
        if self._amax is not None:
            value = value.to(self._amax.device)
        self._amax = value

    def enable(self) -> None:
        """Undo ``disable``."""
        self._disabled = False

    def disable(self) -> None:
        """Pass every tensor through unchanged."""
        self._disabled = True

    def enable_quant(self) -> None:
        """Undo ``disable_quant``."""
        self._if_quant = True

    def disable_quant(self) -> None:
        """Stop rounding, and keep the place in the engine."""
        self._if_quant = False

    def forward(self, x: Tensor) -> Tensor:
        """``fake_quantize``, or ``x`` itself where the quantizer is off."""
        if self._disabled:
            return x
        return self.fake_quantize(x) if self._if_quant else x

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x``, any shape and floating type; the result has its shape and type."""
        if self._amax is None:
            raise RuntimeError("the quantizer was never calibrated (amax is missing): run calibrate_model first")
        high = highest_level(self._num_bits)
        scale = self._amax.detach().float() / high
        # half and bfloat16 kernels do not exist on every device and torch version
        values = x if x.dtype == torch.float32 else x.float()
        if self._axis is None:
            # scale and zero point as tensors: no device-to-host copy in every call
            zero_point = torch.zeros((), dtype=torch.int32, device=scale.device)
            out = torch.fake_quantize_per_tensor_affine(values, scale.reshape(()), zero_point, -high - 1, high)
        else:
            # in floats, else torch checks their range, for which it waits for the GPU twice
            zero_point = torch.zeros(scale.numel(), device=scale.device)
            out = torch.fake_quantize_per_channel_affine(
                values, scale.reshape(-1), zero_point, self._axis, -high - 1, high
            )
        return out.to(x.dtype)

    def extra_repr(self) -> str:
        """Width, axis and amax for torch's print of a model."""
        if self._disabled:
            return "disabled"
        if self._amax is None:
            amax = "not calibrated"
        elif self._amax.numel() == 1:
            amax = f"{float(self._amax):.4g}"
        else:
            amax = f"[{float(self._amax.min()):.4g}, {float(self._amax.max()):.4g}]({self._amax.numel()})"
        where = "per tensor" if self._axis is None else f"axis {self._axis}"
        state = "" if self._if_quant else ", not quantizing"
        return f"{self._num_bits} bit, {where}, amax {amax}{state}"
