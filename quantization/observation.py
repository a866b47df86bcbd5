"""What calibration takes of a tensor, without waiting for a GPU."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# values that a histogram takes of one tensor at most: in 25 batches 3,200 for each of 2,048 bins
SAMPLES = 2 ** 18


class Observation(NamedTuple):
    """What calibration takes of one tensor, on its device.

    Attributes:
        largest: the largest absolute value, shape (); NaN if there is one.
        values: absolute values (n,), all of a small tensor or a sample of a large one.
        weight: how many values of the tensor each of ``values`` stands for.
    """

    largest: Tensor
    values: Tensor
    weight: float


def observe(x: Tensor) -> Observation:
    """Look at ``x``, any shape, on any device, without waiting for it."""
    x = x.detach()
    low, high = torch.aminmax(x)
    values = evenly_sampled(x)
    return Observation(torch.maximum(-low, high).float(), values.abs().float(), x.numel() / values.numel())


def evenly_sampled(x: Tensor) -> Tensor:
    """All values of a small tensor, or at most ``SAMPLES`` of a large one, evenly spread; shape (n,)."""
    step = -(-x.numel() // SAMPLES)
    if step < 2:
        return x.reshape(-1)
    while math.gcd(step, x.numel()) > 1:  # else it could miss whole columns or channels
        step += 1
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        x = x.as_strided((x.numel(),), (1,), x.storage_offset())  # in the order of its memory: no copy
    return x.reshape(-1)[::step]
