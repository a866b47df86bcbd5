"""What calibration takes of a tensor, without waiting for a GPU."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

import torch
from torch import Tensor

# values that a histogram takes of one tensor at most: in 25 batches 1,600 for each of 2,048 bins
SAMPLES = 2**17


class Observation(NamedTuple):
    """What calibration takes of one tensor, on its device.

    Attributes:
        least: the least value, shape (); NaN if there is one.
        most: the largest, shape (); NaN if there is one.
        values: absolute values (n,), all of a small tensor or a sample of a large one.
        weight: how many values of the tensor each of ``values`` stands for.
    """

    least: Tensor
    most: Tensor
    values: Tensor
    weight: float


def observe(x: Tensor) -> Observation:
    """Look at ``x``, any shape, on any device, without waiting for it."""
    x = x.detach()
    least, most = torch.aminmax(x)
    values = evenly_sampled(x)
    return Observation(least, most, values.abs().float(), x.numel() / values.numel())


def largest_magnitudes(observations: Sequence[Observation]) -> list[float]:
    """The largest absolute value of each tensor, NaN if there is one; waits for the GPU, once."""
    ends = torch.stack([end.float() for observation in observations for end in observation[:2]])
    return ends.abs().reshape(-1, 2).amax(1).tolist()


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
