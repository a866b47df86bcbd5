"""Looking at a tensor on its device, for ``ranges.histograms``: its largest magnitude, and a sample of its values."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
from torch import Tensor

from quantization.ranges.histograms import Calibrator, sampling_step


class Observation(NamedTuple):
    """What calibration takes of one tensor, on its device.

    Attributes:
        least: the smallest value, shape (); NaN if there is one.
        most: the largest, shape (); NaN if there is one.
        values: absolute values (n,), all of a small tensor or a sample of a large one.
        weight: how many values of the tensor each of ``values`` stands for.
    """

    least: Tensor
    most: Tensor
    values: Tensor
    weight: float

    def histogram(self, num_bins: int, reach: float) -> Tensor:
        """See ``ranges.histograms.Magnitudes``; on the tensor's device, without waiting for it."""
        return torch.histc(self.values, num_bins, 0.0, reach).double()


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
    step = sampling_step(x.numel())
    if step < 2:
        return x.reshape(-1)
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        x = x.as_strided((x.numel(),), (1,), x.storage_offset())  # in the order of its memory: no copy
    return x.reshape(-1)[::step]


def collect_tensor(calibrator: Calibrator, x: Tensor) -> None:
    """Observe and count one tensor, any shape, on any device.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    observation = observe(x)
    calibrator.reach(*largest_magnitudes([observation]))
    calibrator.count(observation)
