"""What amax, scale and level mean: scale = amax / highest level, zero point 0, levels -highest - 1 to highest."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 8  # the width that TensorRT has kernels for; narrower ones serve experiments


def highest_level(bits: int = BITS) -> int:
    """The level that amax is represented by: 127 for 8 bits."""
    return 2 ** (bits - 1) - 1


# the smallest amax whose scale is a normal float32: below it a scale loses digits or is zero, and TensorRT refuses zero
LEAST_AMAX = highest_level() * torch.finfo(torch.float32).tiny


def usable(amax: Tensor) -> Tensor:
    """Whether each amax, any shape, gives a scale: finite and not below ``LEAST_AMAX``. Bool, of the same shape."""
    return (amax >= LEAST_AMAX) & torch.isfinite(amax)


def replace_zeros(amax: Tensor) -> Tensor:
    """Give 1 to each amax below ``LEAST_AMAX``: any scale is exact for zeros. NaN and infinity stay."""
    return torch.where(amax < LEAST_AMAX, torch.ones_like(amax), amax)
