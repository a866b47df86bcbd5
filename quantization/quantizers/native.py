"""TensorQuantizer on torch's own fake-quantize operators, with pytorch-quantization's interface.

It trains (straight-through estimator), runs on a CPU and a GPU, exports to QuantizeLinear/DequantizeLinear with both
ONNX exporters and pickles. Nothing is compiled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class QuantDescriptor:
    """How a tensor is quantized.

    Args:
        num_bits: width of the integer; symmetric, signed.
        axis: None for one scale a tensor, 0 for one scale a slice along axis 0 (per output channel of a weight).
        calib_method: "max" or "histogram"; kept for people who come from pytorch-quantization. The bundle sets its own
            calibrators (quantization.calibration).
    """

    def __init__(self, num_bits: int = 8, axis: int | tuple[int, ...] | None = None, calib_method: str = "max") -> None:
        if not 2 <= num_bits <= 8:
            raise ValueError(f"num_bits is {num_bits}: 2 to 8 can be represented in an INT8 engine")
        self.num_bits = num_bits
        self.axis = axis[0] if isinstance(axis, (tuple, list)) and len(axis) == 1 else axis
        if self.axis not in (None, 0):
            raise ValueError(f"axis is {axis}: None (per tensor) and 0 (per output channel) are supported")
        self.calib_method = calib_method


class TensorQuantizer(nn.Module):
    """Fake-quantizes a tensor: ``dequantize(quantize(x))`` with scale = amax / 127, zero point 0, range -128..127.

    The scale is what ONNX and TensorRT use; see "Quantization scheme" in the TensorRT documentation. Gradients pass
    unchanged inside the range and are zero outside it (straight-through estimator, Bengio et al. 2013).
    """

    use_fb_fake_quant = True  # always: kept so that code written for pytorch-quantization can set it
    _amax: Tensor | None

    def __init__(
        self,
        quant_desc: QuantDescriptor | None = None,
        disabled: bool = False,
        if_quant: bool = True,
        if_calib: bool = False,
    ) -> None:
        super().__init__()
        desc = quant_desc if quant_desc is not None else QuantDescriptor()
        self._num_bits, self._axis = desc.num_bits, desc.axis
        self._disabled, self._if_quant, self._if_calib = disabled, if_quant, if_calib
        self._calibrator: Any = None
        self.register_buffer("_amax", None)

    @property
    def num_bits(self) -> int:
        return self._num_bits

    @property
    def axis(self) -> int | None:
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
        self._disabled = False

    def disable(self) -> None:
        """Pass every tensor through unchanged."""
        self._disabled = True

    def enable_quant(self) -> None:
        self._if_quant = True

    def disable_quant(self) -> None:
        self._if_quant = False

    def enable_calib(self) -> None:
        """Let the calibrator see every tensor that comes by.

        Raises:
            ValueError: there is no calibrator.
        """
        if self._calibrator is None:
            raise ValueError("no calibrator is set: assign one from quantization.calibration to _calibrator")
        self._if_calib = True

    def disable_calib(self) -> None:
        self._if_calib = False

    def load_calib_amax(self, *args: Any, **kwargs: Any) -> None:
        """Take amax from the calibrator; arguments go to its ``compute_amax``.

        Raises:
            RuntimeError: there is no calibrator, or it has seen no tensor.
        """
        if self._calibrator is None:
            raise RuntimeError("no calibrator is set")
        amax = self._calibrator.compute_amax(*args, **kwargs)
        if amax is None:
            raise RuntimeError("the calibrator has seen no tensor: run the model on images before load_calib_amax")
        self.amax = amax

    def forward(self, x: Tensor) -> Tensor:
        if self._disabled:
            return x
        if self._if_calib:
            self._calibrator.collect(x)
        return self.fake_quantize(x) if self._if_quant else x

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x``, any shape and floating type; the result has its shape and type."""
        if self._amax is None:
            raise RuntimeError("the quantizer was never calibrated (amax is missing): run calibrate_model first")
        high = 2 ** (self._num_bits - 1) - 1
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
        return f"{self._num_bits} bit, {where}, amax {amax}{state}{', calibrating' if self._if_calib else ''}"
