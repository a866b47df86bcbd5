"""Samples of numpy arrays for ``ranges.histograms``, as ``calibration.observation`` takes them of tensors."""

from __future__ import annotations

import numpy as np

from quantization.ranges.histograms import sampling_step


class ArraySample:
    """What calibration takes of one tensor, which comes in parts: the same as of the whole.

    Args:
        size: number of values of all parts.

    Attributes:
        largest: the largest absolute value so far; NaN if there is one.
    """

    def __init__(self, size: int) -> None:
        self._size, self._step, self._offset = size, sampling_step(size), 0
        self._parts: list[np.ndarray] = []
        self.largest = 0.0

    def add(self, part: np.ndarray) -> None:
        """Take the next part, any shape."""
        values = part.reshape(-1)
        chosen = values[-self._offset % self._step :: self._step]
        self._parts.append(np.abs(chosen.astype(np.float32)))
        self._offset += values.size
        ends = np.abs([values.min(), values.max()]).astype(np.float64)
        self.largest = float(np.maximum(self.largest, ends.max()))  # which keeps NaN

    @property
    def weight(self) -> float:
        """See ``ranges.histograms.Magnitudes``."""
        return self._size / sum(map(len, self._parts))

    def histogram(self, num_bins: int, reach: float) -> np.ndarray:
        """See ``ranges.histograms.Magnitudes``; the bins are those of ``torch.histc``, which counts in float32 too."""
        values = np.concatenate(self._parts)
        values = values[values <= np.float32(reach)]
        bins = (values * np.float32(num_bins) / np.float32(reach)).astype(np.int64)
        return np.bincount(np.minimum(bins, num_bins - 1), minlength=num_bins).astype(np.float64)
