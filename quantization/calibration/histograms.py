"""Calibrators: ``collect`` tensors, then ``compute_amax``; ``reset`` starts afresh. They serve both backends.

``collect`` is ``observe``, which does not wait for a GPU, and ``count``, which needs the largest value on the host: who
collects many tensors observes them all first and fetches all largest values at once.

The searches over candidate ranges are one vectorised computation each: with prefix sums of the histogram, the error
of a candidate needs the 128 bins at its level boundaries only, and the boundaries, in units of bins, are the same for
every histogram.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantization.calibration.observation import Observation, largest_magnitudes, observe
from quantization.calibration.range_search import (
    NUM_BINS,
    channel_amax,
    entropy_index,
    mse_index,
    percentile_index,
    replace_zeros,
)

METHODS = ("sqnr", "mse", "entropy", "percentile", "max")


class MaxCalibrator:
    """amax is the largest absolute value seen.

    Args:
        axis: None for one value a tensor, 0 for one a slice along axis 0, shape (C, 1, ...).
    """

    def __init__(self, axis: int | None = None) -> None:
        self._axis = axis
        self.reset()

    def reset(self) -> None:
        self._amax: Tensor | None = None

    def collect(self, x: Tensor) -> None:
        """Look at ``x``, any shape, on any device.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        amax = channel_amax(x) if self._axis == 0 else x.detach().abs().float().amax()
        if not bool(torch.isfinite(amax).all()):
            raise ValueError("a tensor with NaN or infinity came to calibration")
        self._amax = amax if self._amax is None else torch.maximum(self._amax, amax)

    def count(self, observation: Observation, largest: float) -> None:
        """Take in an observation, for ``axis`` None; see ``HistogramCalibrator.count``."""
        self.collect(torch.tensor(largest))

    def compute_amax(self) -> Tensor | None:
        """Shape () or (C, 1, ...); None if nothing was collected."""
        return None if self._amax is None else replace_zeros(self._amax)


class HistogramCalibrator:
    """A histogram of absolute values with a fixed number of bins, whose range doubles when a larger value comes.

    Doubling merges pairs of bins exactly, so the order of the tensors does not matter once the range is the same.

    Args:
        method: "mse", "entropy" or "percentile".
        percentile: share of values inside the range, in percent, for method "percentile".
        num_bins: even.
    """

    def __init__(self, method: str = "mse", percentile: float = 99.99, num_bins: int = NUM_BINS) -> None:
        if method not in ("mse", "entropy", "percentile"):
            raise ValueError(f"method is {method!r}: choose mse, entropy or percentile")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile is {percentile}: give one above 0 and up to 100")
        self.method, self.percentile, self.num_bins = method, percentile, num_bins
        self.reset()

    def reset(self) -> None:
        self.seen = False
        self.range = 0.0
        self.counts: Tensor | None = None  # (num_bins,) float64: exact up to 2**53 values

    def collect(self, x: Tensor) -> None:
        """Count ``x``, any shape, on any device.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        observation = observe(x)
        self.count(observation, *largest_magnitudes([observation]))

    def count(self, observation: Observation, largest: float) -> None:
        """Count what was observed of a tensor.

        Args:
            observation: of the tensor.
            largest: its largest absolute value, on the host.

        Raises:
            ValueError: the tensor holds NaN or infinity.
        """
        if largest != largest or largest == float("inf"):
            raise ValueError("a tensor with NaN or infinity came to calibration")
        self.seen = True
        if largest == 0.0 and self.counts is None:
            return  # nothing to set a range by yet
        if self.counts is None:
            self.range = largest
            self.counts = torch.zeros(self.num_bins, dtype=torch.float64, device=observation.values.device)
        while largest > self.range:
            pairs = self.counts.view(-1, 2).sum(1)
            self.counts = torch.cat((pairs, torch.zeros_like(pairs)))
            self.range *= 2
        counts = torch.histc(observation.values, self.num_bins, 0.0, self.range)
        self.counts.add_(counts, alpha=observation.weight)

    def compute_amax(self) -> Tensor | None:
        """Shape (); None if nothing was collected, 1 if nothing but zeros was: they are exact at any scale."""
        if self.counts is None:
            return torch.tensor(1.0) if self.seen else None
        if self.method == "percentile":
            index = percentile_index(self.counts, self.percentile)
            return torch.tensor((index + 1) * self.range / self.num_bins)
        search = mse_index if self.method == "mse" else entropy_index
        index = int(search(self.counts[None])[0])
        # mse: the candidate ranges are bin centres; entropy: right edges, since a candidate is a number of whole bins
        return torch.tensor((index + (0.5 if self.method == "mse" else 0.0)) * self.range / self.num_bins)


def compute_amax_all(calibrators: dict[str, HistogramCalibrator | MaxCalibrator]) -> dict[str, Tensor | None]:
    """Amax of many calibrators at once; MSE and entropy histograms are searched in batches on their device.

    Args:
        calibrators: name to calibrator.

    Returns:
        Name to amax, or None where the calibrator saw nothing.
    """
    result: dict[str, Tensor | None] = {}
    batches: dict[tuple[str, int], list[str]] = {}
    for name, calibrator in calibrators.items():
        if (
            isinstance(calibrator, HistogramCalibrator)
            and calibrator.counts is not None
            and calibrator.method != "percentile"
        ):
            batches.setdefault((calibrator.method, calibrator.num_bins), []).append(name)
        else:
            result[name] = calibrator.compute_amax()
    for (method, num_bins), names in batches.items():
        counts = torch.stack([calibrators[name].counts for name in names])  # (H, B)
        index = (mse_index if method == "mse" else entropy_index)(counts).double().cpu()
        ranges = torch.tensor([calibrators[name].range for name in names], dtype=torch.float64)
        amax = ((index + (0.5 if method == "mse" else 0.0)) * ranges / num_bins).float()
        result.update(zip(names, amax.unbind()))
    return {name: result[name] for name in calibrators}


def make_calibrator(method: str) -> HistogramCalibrator | MaxCalibrator:
    """An activation calibrator by name, one of ``METHODS``; "sqnr" begins as "mse", see ``output_error``."""
    return MaxCalibrator() if method == "max" else HistogramCalibrator("mse" if method == "sqnr" else method)
