"""What amax and level mean: scale = amax / highest level, zero point 0, levels -highest - 1 to highest."""

from __future__ import annotations

import numpy as np

BITS = 8  # the width that TensorRT has kernels for; narrower ones serve experiments


def highest_level(bits: int = BITS) -> int:
    """The level that amax is represented by: 127 for 8 bits."""
    return 2 ** (bits - 1) - 1


# the smallest amax whose scale is a normal float32: below it a scale loses digits or is zero, and TensorRT refuses zero
LEAST_AMAX = highest_level() * float(np.finfo(np.float32).tiny)
