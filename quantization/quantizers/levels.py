"""Which amax gives a scale, and what stands in for one that does not; ``ranges.levels`` says what amax means."""

from __future__ import annotations

import torch
from torch import Tensor

from quantization.ranges.levels import LEAST_AMAX


def channel_amax(weight: Tensor) -> Tensor:
    """The largest magnitude of each output channel, (C, ...) to (C, 1, ...), in float32; NaN where there is one."""
    return weight.detach().abs().float().amax(dim=tuple(range(1, weight.dim())), keepdim=True)


def usable(amax: Tensor) -> Tensor:
    """Whether each amax, any shape, gives a scale: finite and not below ``LEAST_AMAX``. Bool, of the same shape."""
    return (amax >= LEAST_AMAX) & torch.isfinite(amax)


def replace_zeros(amax: Tensor) -> Tensor:
    """Give 1 to each amax below ``LEAST_AMAX``: any scale is exact for zeros. NaN and infinity stay."""
    return torch.where(amax < LEAST_AMAX, torch.ones_like(amax), amax)
