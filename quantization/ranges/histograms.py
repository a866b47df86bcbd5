"""What calibration keeps of a tensor: its largest magnitude, or a histogram of magnitudes, and the amax that follows.

Collecting has two steps, so that whoever shows many tensors of a GPU can fetch all their largest values at once: ``reach``
takes in the largest value, ``count`` the values. They are counted where they are: torch counts a tensor on its device
(``calibration.observation``), numpy an array (``ranges.samples``). The counts are on the host before an amax is asked for.

The searches over candidate ranges are one vectorised computation each: with prefix sums of the histogram, the error
of a candidate needs the bins at its level boundaries only, and the boundaries, in units of bins, are the same for
every histogram.
"""

from __future__ import annotations

import abc
import math
from typing import Any, Mapping, Protocol

import numpy as np

from quantization.ranges.levels import BITS, LEAST_AMAX
from quantization.ranges.range_search import NUM_BINS, entropy_index, mse_index, percentile_index

# values that a histogram takes of one tensor at most: in 25 batches 1,600 for each of 2,048 bins
SAMPLES = 2**17
Counts = Any  # (num_bins,) float64, a numpy array or a torch tensor


def sampling_step(count: int) -> int:
    """Every how many of a tensor's ``count`` values one is taken, so that ``SAMPLES`` at most are."""
    step = -(-count // SAMPLES)
    if step < 2:
        return 1
    while math.gcd(step, count) > 1:  # else it could miss whole columns or channels
        step += 1
    return step


class Magnitudes(Protocol):
    """Absolute values of a tensor, all or a sample of them.

    Attributes:
        weight: how many values of the tensor each of them stands for.
    """

    @property
    def weight(self) -> float:
        """See above."""

    def histogram(self, num_bins: int, reach: float) -> Counts:
        """How many of them lie in each of ``num_bins`` bins from 0 to ``reach``, above zero; those beyond in none."""


def refuse_damaged(largest: float) -> None:
    """Raises a ValueError if a tensor's largest magnitude is NaN or infinite."""
    if not math.isfinite(largest):
        raise ValueError("a tensor with NaN or infinity came to calibration")


class Calibrator(abc.ABC):
    """Collects tensors, then gives an amax."""

    @abc.abstractmethod
    def reach(self, largest: float) -> None:
        """Take in the largest absolute value of a tensor, on the host.

        Raises:
            ValueError: the tensor holds NaN or infinity.
        """

    @abc.abstractmethod
    def count(self, magnitudes: Magnitudes) -> None:
        """Count the values of the tensor whose largest one ``reach`` has just taken in."""

    @abc.abstractmethod
    def compute_amax(self) -> float | None:
        """The amax, 0 if every value was zero (below ``LEAST_AMAX``); None if nothing was collected."""


class MaxCalibrator(Calibrator):
    """The amax is the largest absolute value seen."""

    def __init__(self) -> None:
        self.largest: float | None = None

    def reach(self, largest: float) -> None:
        """See ``Calibrator.reach``."""
        refuse_damaged(largest)
        self.largest = max(largest, self.largest or 0.0)

    def count(self, magnitudes: Magnitudes) -> None:
        """Nothing is left to count."""

    def compute_amax(self) -> float | None:
        """See ``Calibrator.compute_amax``."""
        return 0.0 if self.largest is not None and self.largest < LEAST_AMAX else self.largest


class HistogramCalibrator(Calibrator):
    """A histogram of absolute values with a fixed number of bins, whose range doubles when a larger value comes.

    Doubling merges pairs of bins exactly, and values are counted as whole numbers, apart by weight: the sums do not depend
    on the order of the tensors, nor on who counted them (``distributed``), once each tensor's range is the same.

    Args:
        method: "mse", "entropy" or "percentile".
        percentile: share of values inside the range, in percent, for method "percentile".
        num_bins: even.
        bits: width of the integers that the range is for.

    Attributes:
        range: the largest magnitude that the histogram reaches; 0 while every value was zero.
        by_weight: how many values were counted, (num_bins,) float64, exact up to 2**53, by what each stands for.
    """

    def __init__(
        self, method: str = "mse", percentile: float = 99.99, num_bins: int = NUM_BINS, bits: int = BITS
    ) -> None:
        if method not in ("mse", "entropy", "percentile"):
            raise ValueError(f"method is {method!r}: choose mse, entropy or percentile")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile is {percentile}: give one above 0 and up to 100")
        self.method, self.percentile, self.num_bins, self.bits = method, percentile, num_bins, bits
        self.seen = False
        self.range = 0.0
        self.by_weight: dict[float, Counts] = {}

    @property
    def counts(self) -> np.ndarray | None:
        """(num_bins,) float64, by weight, of counts on the host; None while every value was zero."""
        if not self.by_weight:
            return None
        return np.stack([weight * np.asarray(self.by_weight[weight]) for weight in sorted(self.by_weight)]).sum(0)

    def reach(self, largest: float) -> None:
        """See ``Calibrator.reach``."""
        refuse_damaged(largest)
        self.seen = True
        if not self.range:
            self.range = largest if largest >= LEAST_AMAX else 0.0  # nothing but zeros: no range to set yet
        while largest > self.range > 0:
            for weight, counts in self.by_weight.items():
                pairs = counts.reshape(-1, 2).sum(1)
                wider = counts * 0
                wider[: self.num_bins // 2] = pairs
                self.by_weight[weight] = wider
            self.range *= 2

    def count(self, magnitudes: Magnitudes) -> None:
        """See ``Calibrator.count``."""
        if self.range:
            self.add(magnitudes.weight, magnitudes.histogram(self.num_bins, self.range))

    def add(self, weight: float, counts: Counts) -> None:
        """Add numbers of values, (num_bins,) float64 in the present range, each of which stands for ``weight`` values."""
        before = self.by_weight.get(weight)
        self.by_weight[weight] = counts if before is None else before + counts

    def at_index(self, index: float) -> float:
        """The amax that a search's index stands for: a bin's centre (mse) or right edge (entropy, percentile)."""
        # the entropy search gives a number of whole bins, the others a bin
        offset = {"mse": 0.5, "entropy": 0.0, "percentile": 1.0}[self.method]
        amax = (index + offset) * self.range / self.num_bins
        return amax if amax >= LEAST_AMAX else 0.0

    def compute_amax(self) -> float | None:
        """See ``Calibrator.compute_amax``."""
        return compute_amax_all({"": self})[""]


def compute_amax_all(calibrators: Mapping[str, Calibrator]) -> dict[str, float | None]:
    """The amax of many calibrators at once; MSE and entropy histograms are searched in batches.

    Args:
        calibrators: name to calibrator.

    Returns:
        Name to amax, 0 where every value was zero, None where the calibrator saw nothing.
    """
    result: dict[str, float | None] = {}
    batches: dict[tuple[str, int, int], list[tuple[str, HistogramCalibrator, np.ndarray]]] = {}
    for name, calibrator in calibrators.items():
        if not isinstance(calibrator, HistogramCalibrator):
            result[name] = calibrator.compute_amax()
            continue
        counted = calibrator.counts
        if counted is None:
            result[name] = 0.0 if calibrator.seen else None
        elif calibrator.method == "percentile":
            result[name] = calibrator.at_index(percentile_index(counted, calibrator.percentile))
        else:
            key = (calibrator.method, calibrator.num_bins, calibrator.bits)
            batches.setdefault(key, []).append((name, calibrator, counted))
    for (method, _, bits), entries in batches.items():
        counts = np.stack([entry[2] for entry in entries])  # (H, B)
        indices = (mse_index if method == "mse" else entropy_index)(counts, bits).tolist()
        result.update((name, calibrator.at_index(index)) for (name, calibrator, _), index in zip(entries, indices))
    return {name: result[name] for name in calibrators}


def make_calibrator(method: str, bits: int = BITS) -> Calibrator:
    """An activation calibrator by name, one of ``options.CALIBRATION_METHODS``; "sqnr" begins as "mse", see ``gradient_ranges``."""
    return MaxCalibrator() if method == "max" else HistogramCalibrator("mse" if method == "sqnr" else method, bits=bits)
