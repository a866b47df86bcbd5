"""Calibrators: ``collect`` tensors, then ``compute_amax``; ``reset`` starts afresh. They serve both backends.

``collect`` is ``observe``, which does not wait for a GPU, and ``count``, which needs the largest value on the host: who
collects many tensors observes them all first and fetches all largest values at once.

The searches over candidate ranges are one vectorised computation each: with prefix sums of the histogram, the error
of a candidate needs the 128 bins at its level boundaries only, and the boundaries, in units of bins, are the same for
every histogram.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor

from quantization.observation import Observation, largest_magnitudes, observe

METHODS = ("sqnr", "mse", "entropy", "percentile", "max")
NUM_BINS = 2048
FIRST_CANDIDATE = 128  # a narrower range would have less than one bin a level


class MaxCalibrator:
    """amax is the largest absolute value seen.

    Args:
        axis: None for one value a tensor, 0 for one a slice along axis 0, shape (C, 1, ...).
    """

    def __init__(self, axis: Optional[int] = None) -> None:
        self._axis = axis
        self.reset()

    def reset(self) -> None:
        self._amax: Optional[Tensor] = None

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

    def compute_amax(self) -> Optional[Tensor]:
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
        self.counts: Optional[Tensor] = None  # (num_bins,) float64: exact up to 2**53 values

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

    def compute_amax(self) -> Optional[Tensor]:
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


def compute_amax_all(calibrators: Dict[str, "HistogramCalibrator | MaxCalibrator"]) -> Dict[str, Optional[Tensor]]:
    """amax of many calibrators at once; MSE and entropy histograms are searched in batches on their device.

    Args:
        calibrators: name to calibrator.

    Returns:
        Name to amax, or None where the calibrator saw nothing.
    """
    result: Dict[str, Optional[Tensor]] = {}
    batches: Dict[Tuple[str, int], List[str]] = {}
    for name, calibrator in calibrators.items():
        if isinstance(calibrator, HistogramCalibrator) and calibrator.counts is not None \
                and calibrator.method != "percentile":
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


def channel_amax(weight: Tensor) -> Tensor:
    """The largest magnitude of each output channel, (C, ...) to (C, 1, ...), in float32; NaN where there is one."""
    return weight.detach().abs().float().amax(dim=tuple(range(1, weight.dim())), keepdim=True)


def replace_zeros(amax: Tensor) -> Tensor:
    """A channel of zeros is exact at any scale, but TensorRT refuses a scale of 0: give it 1."""
    return torch.where(amax > 0, amax, torch.ones_like(amax))


def _level_boundaries(amax: Tensor, num_bins: int) -> Tensor:
    """First bin of every level for every candidate amax, in bins: (K,) to (K, 129); the last is the number of bins.

    The scale is amax / 127 bins. Bin j, at j + 1/2, rounds to level round((j + 1/2) / scale), so level k begins at the
    first j with (j + 1/2) >= (k - 1/2) * scale. Whether a centre on a boundary rounds up or down does not change its
    squared error.
    """
    level = torch.arange(1, 128, dtype=torch.float64, device=amax.device) - 0.5  # (127,)
    first = torch.ceil(level[None] * amax[:, None] / 127 - 0.5).clamp(0, num_bins).long()  # (K, 127)
    zero, end = torch.zeros_like(first[:, :1]), torch.full_like(first[:, :1], num_bins)
    return torch.cat((zero, first, end), 1)  # (K, 129)


def squared_errors(counts: Tensor, amax: Tensor, boundaries: Optional[Tensor] = None) -> Tensor:
    """Squared quantization error of a histogram at each candidate amax, in squared bins.

    sum over bins of counts * (level * scale - centre)^2, which per level is q^2 * S0 - 2 q * S1 + S2 with the sums of
    counts, counts * centre and counts * centre^2 over the bins of the level.

    Args:
        counts: (B,).
        amax: (K,) float64, in bins.
        boundaries: ``_level_boundaries`` of these, if at hand.

    Returns:
        (K,) float64.
    """
    counts = counts.double()
    if boundaries is None:
        boundaries = _level_boundaries(amax, counts.numel())
    centres = torch.arange(counts.numel(), dtype=torch.float64, device=counts.device) + 0.5
    scale = amax / 127
    level = torch.arange(128, dtype=torch.float64, device=counts.device)
    prefix = torch.nn.functional.pad(torch.stack((counts, counts * centres)).cumsum(1), (1, 0))  # (2, B + 1)
    total, first = prefix[:, boundaries].diff(dim=2).unbind()  # (K, 128) each
    square = (counts * centres * centres).sum()
    # level * (level * total * scale^2 - 2 * first * scale), summed over levels as two products
    return square + scale * (scale * (total @ (level * level)) - 2 * (first @ level))


@lru_cache(maxsize=4)
def _mse_candidates(num_bins: int, device: torch.device) -> Tuple[Tensor, Tensor]:
    """The centres of bins 128, 129, ... B - 1, in bins, and their level boundaries."""
    amax = torch.arange(FIRST_CANDIDATE, num_bins, dtype=torch.float64, device=device) + 0.5  # (K,)
    return amax, _level_boundaries(amax, num_bins)


def mse_errors(counts: Tensor) -> Tensor:
    """``squared_errors`` of each candidate range: (H, B), one histogram a row, to (H, B - 128)."""
    amax, boundaries = _mse_candidates(counts.shape[1], counts.device)
    return torch.stack([squared_errors(row, amax, boundaries) for row in counts])


def mse_index(counts: Tensor) -> Tensor:
    """Bin whose centre is the amax with the least squared error: (H, B) to (H,)."""
    return mse_errors(counts).argmin(1) + FIRST_CANDIDATE


@lru_cache(maxsize=4)
def _entropy_boundaries(num_bins: int, device: torch.device) -> Tensor:
    """First bin of each of the 128 levels when i bins are kept, (K, 129) long, for i = 128, 129, ... B - 1 + 1."""
    kept = torch.arange(FIRST_CANDIDATE, num_bins + 1, dtype=torch.float64, device=device)  # (K,)
    edge = torch.arange(129, dtype=torch.float64, device=device)
    return torch.ceil(edge[None] * kept[:, None] / 128 - 1e-9).long()  # (K, 129)


def entropy_divergences(counts: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each candidate range, in nats, as in TensorRT's entropy calibration.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017. With the first i bins kept, P is the histogram with
    the outliers added to its last bin, and Q spreads the mass of each of 128 levels over its bins that are not empty.

    Args:
        counts: (H, B), one histogram a row.

    Returns:
        (H, B - 127): the candidates keep 128, 129, ... B bins; infinite where P has mass that Q cannot have.
    """
    rows, num_bins = counts.shape
    counts = counts.double()
    boundaries = _entropy_boundaries(num_bins, counts.device)  # (K, 129)
    kept = boundaries[:, -1]  # (K,)
    result = torch.empty(rows, num_bins - FIRST_CANDIDATE + 1, dtype=torch.float64, device=counts.device)
    for row in range(rows):
        c = counts[row]
        sums = torch.stack((c, (c > 0).double(), torch.xlogy(c, c)))
        prefix = torch.nn.functional.pad(sums.cumsum(1), (1, 0))  # (3, B + 1)
        mass, occupied = prefix[:2][:, boundaries].diff(dim=2).unbind()  # (K, 128)
        total, kept_mass = c.sum(), prefix[0][kept]
        outliers = total - kept_mass  # (K,)
        last = c[kept - 1]
        # sum of p log p with unnormalised p; the last bin holds the outliers too
        p_log_p = prefix[2][kept] - torch.xlogy(last, last) + torch.xlogy(last + outliers, last + outliers)
        log_q = torch.where(mass > 0, torch.log(mass / occupied.clamp(min=1)), torch.zeros_like(mass))
        p_log_q = (mass * log_q).sum(1) + outliers * log_q[:, -1]
        # normalise both: KL = sum p/N (log p/N - log q/M) = (sum p log p - sum p log q) / N - log N + log M
        divergence = (p_log_p - p_log_q) / total - torch.log(total) + torch.log(kept_mass)
        result[row] = torch.where((last == 0) & (outliers > 0), torch.full_like(divergence, float("inf")), divergence)
    return result


def entropy_index(counts: Tensor) -> Tensor:
    """Number of bins to keep for the least divergence: (H, B) to (H,)."""
    return entropy_divergences(counts).argmin(1) + FIRST_CANDIDATE


def percentile_index(counts: Tensor, percentile: float) -> int:
    """First bin up to which ``percentile`` percent of the values lie: (B,) to an index."""
    share = counts.cumsum(0) / counts.sum()
    target = torch.tensor(percentile / 100, dtype=share.dtype, device=share.device)
    return min(int(torch.searchsorted(share, target)), counts.numel() - 1)


def make_calibrator(method: str) -> "HistogramCalibrator | MaxCalibrator":
    """An activation calibrator by name, one of ``METHODS``; "sqnr" begins as "mse", see ``output_error``."""
    return MaxCalibrator() if method == "max" else HistogramCalibrator("mse" if method == "sqnr" else method)
