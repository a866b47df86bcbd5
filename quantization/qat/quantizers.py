"""What stands in for the quantizers of either backend while QAT trains: cheaper, and with scales that can be learned.

Cheaper: scales are constants where nothing learns them, half precision is quantized as it comes where torch can, and a
tensor that several layers read through one shared quantizer is quantized once in a forward pass.
"""

from __future__ import annotations

import contextlib
import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from quantization.quantizers.backend import (
    bits,
    get_scale,
    is_per_channel,
    is_quantizing,
    named_quantizers,
    set_amax,
    swapped,
)
from quantization.quantizers.pass_memo import TensorMemo
from quantization.ranges.levels import highest_level

LOG = logging.getLogger("quantization")


@lru_cache(maxsize=None)
def quantizes_half(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch has fake quantization of a half-precision type on a device."""
    try:
        torch.fake_quantize_per_tensor_affine(torch.zeros(1, dtype=dtype, device=device), 1.0, 0, -128, 127)
        return True
    except (RuntimeError, NotImplementedError) as error:
        LOG.debug("fake quantization goes through float32: %s", error)
        return False


class LearnedScale(torch.autograd.Function):
    """Fake quantization with a gradient for the scale: LSQ (Esser et al., "Learned Step Size Quantization", ICLR 2020).

    d out / d scale = round(x / scale) - x / scale inside the range, its nearest end outside. The paper's factor on that
    gradient is left out: Adam's steps do not depend on it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        """``x``, any shape, rounded to multiples of ``scale``, () or (C, 1, ...), from ``low`` to ``high``."""
        ctx.save_for_backward(x, scale)
        ctx.ends = (low, high)
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Gradients of ``x`` and ``scale``, of their shapes."""
        x, scale = ctx.saved_tensors
        low, high = ctx.ends
        levels = x / scale
        rounded = levels.round()
        inside = (rounded >= low) & (rounded <= high)
        slope = torch.where(inside, rounded - levels, rounded.clamp_(low, high)).mul_(gradient)
        of_scale = slope.sum() if scale.dim() == 0 else slope.sum(dim=tuple(range(1, x.dim())), keepdim=True)
        return gradient * inside, of_scale, None, None


class QatQuantizer(nn.Module):
    """Stands in for one calibrated quantizer, at all its places.

    Args:
        quantizer: of either backend, with amax.
        places: how many modules it serves.
        learn: learn the scale, as scale * exp(p) with p from 0, so that it stays above zero and a step of the optimizer
            is a share of it.
    """

    scale: Tensor  # (C, 1, ...) or ()
    zero: Tensor  # (C,)

    def __init__(self, quantizer: nn.Module, places: int, learn: bool) -> None:
        super().__init__()
        self.high = highest_level(bits(quantizer))
        scale = get_scale(quantizer)
        self.per_channel = is_per_channel(quantizer)
        self.register_buffer("scale", scale if self.per_channel else scale.reshape(()))  # (C, 1, ...) or ()
        # torch checks the range of an integer zero point, for which it waits for the GPU twice in each call
        self.register_buffer("zero", torch.zeros(scale.numel(), device=scale.device))
        self.number = 0.0 if self.per_channel else float(scale)
        self.log_scale = nn.Parameter(torch.zeros_like(self.scale)) if learn else None
        self.shared = places > 1
        self._seen = TensorMemo()  # the quantized tensors of this forward pass

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x``, any shape; once per tensor and forward pass where several modules read it."""
        if not self.shared:
            return self.fake_quantize(x)
        result = self._seen.find(x)
        if result is None:
            result = self.fake_quantize(x)
            self._seen.add(x, result)
        return result

    def forget(self) -> None:
        """Drop the results of this forward pass, which hold its graph."""
        self._seen.clear()

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x``, any shape and floating type; the result has its shape and type."""
        if self.log_scale is not None:
            scale = self.scale * self.log_scale.exp()
            learned: Tensor = LearnedScale.apply(x.float(), scale, -self.high - 1, self.high)
            return learned.to(x.dtype)
        values = x if x.dtype == torch.float32 or quantizes_half(x.dtype, x.device) else x.float()
        if self.per_channel:
            out = torch.fake_quantize_per_channel_affine(
                values, self.scale.reshape(-1), self.zero, 0, -self.high - 1, self.high
            )
        else:
            out = torch.fake_quantize_per_tensor_affine(values, self.number, 0, -self.high - 1, self.high)
        return out.to(x.dtype)

    def amax(self) -> Tensor:
        """The range as it is now, of the shape that the quantizer's own has."""
        learned = self.scale if self.log_scale is None else self.scale * self.log_scale.detach().exp()
        return learned * self.high


class QatQuantizers:
    """The stand-ins for all quantizers of a model that are on.

    Args:
        model: quantized and calibrated.
        learn: learn the scales.
    """

    def __init__(self, model: nn.Module, learn: bool = False) -> None:
        self._model = model
        self._quantizers: dict[int, nn.Module] = {}
        places: dict[int, int] = {}
        for _, _, _, quantizer in named_quantizers(model):
            if is_quantizing(quantizer):
                self._quantizers[id(quantizer)] = quantizer
                places[id(quantizer)] = places.get(id(quantizer), 0) + 1
        self._stand_ins = {
            key: QatQuantizer(quantizer, places[key], learn) for key, quantizer in self._quantizers.items()
        }

    def parameters(self) -> list[nn.Parameter]:
        """What learns the scales; empty if nothing does."""
        return [stand_in.log_scale for stand_in in self._stand_ins.values() if stand_in.log_scale is not None]

    def in_place(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the stand-ins sit in the model."""
        return swapped(self._model, lambda path, name, quantizer: self._stand_ins.get(id(quantizer), quantizer))

    def forget(self) -> None:
        """Call after each forward pass; see ``QatQuantizer.forget``."""
        for stand_in in self._stand_ins.values():
            stand_in.forget()

    def write_back(self) -> None:
        """Give the quantizers the learned ranges, as calibrated values."""
        for key, stand_in in self._stand_ins.items():
            if stand_in.log_scale is not None:
                set_amax(self._quantizers[key], stand_in.amax())
