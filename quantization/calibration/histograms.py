"""What calibration keeps of a tensor: its largest magnitude, or a histogram of magnitudes, and the amax that follows.

Collecting has two steps: ``observe``, which does not wait for a GPU, and ``count``, which needs the largest value on the
host. Whoever collects many tensors observes them all first and fetches all largest values at once.

The searches over candidate ranges are one vectorised computation each: with prefix sums of the histogram, the error
of a candidate needs the bins at its level boundaries only, and the boundaries, in units of bins, are the same for
every histogram.
"""

from __future__ import annotations

import abc
import math
from typing import Mapping, NamedTuple, Sequence

import torch
from torch import Tensor

from quantization.calibration.range_search import NUM_BINS, entropy_index, mse_index, percentile_index
from quantization.quantizers.levels import BITS, LEAST_AMAX

# values that a histogram takes of one tensor at most: in 25 batches 1,600 for each of 2,048 bins
SAMPLES = 2**17


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
    def count(self, observation: Observation) -> None:
        """Count what was observed of the tensor whose largest value ``reach`` has just taken in."""

    @abc.abstractmethod
    def compute_amax(self) -> float | None:
        """The amax, 0 if every value was zero (below ``LEAST_AMAX``); None if nothing was collected."""

    def collect(self, x: Tensor) -> None:
        """Observe and count one tensor, any shape, on any device.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        observation = observe(x)
        self.reach(*largest_magnitudes([observation]))
        self.count(observation)


class MaxCalibrator(Calibrator):
    """The amax is the largest absolute value seen."""

    def __init__(self) -> None:
        self.largest: float | None = None

    def reach(self, largest: float) -> None:
        """See ``Calibrator.reach``."""
        refuse_damaged(largest)
        self.largest = max(largest, self.largest or 0.0)

    def count(self, observation: Observation) -> None:
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
        self.by_weight: dict[float, Tensor] = {}

    @property
    def counts(self) -> Tensor | None:
        """(num_bins,) float64, by weight; None while every value was zero."""
        if not self.by_weight:
            return None
        return torch.stack([weight * self.by_weight[weight] for weight in sorted(self.by_weight)]).sum(0)

    def reach(self, largest: float) -> None:
        """See ``Calibrator.reach``."""
        refuse_damaged(largest)
        self.seen = True
        if not self.range:
            self.range = largest if largest >= LEAST_AMAX else 0.0  # nothing but zeros: no range to set yet
        while largest > self.range > 0:
            for weight, counts in self.by_weight.items():
                pairs = counts.view(-1, 2).sum(1)
                self.by_weight[weight] = torch.cat((pairs, torch.zeros_like(pairs)))
            self.range *= 2

    def count(self, observation: Observation) -> None:
        """See ``Calibrator.count``."""
        if self.range:
            self.add(observation.weight, torch.histc(observation.values, self.num_bins, 0.0, self.range).double())

    def add(self, weight: float, counts: Tensor) -> None:
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
    """The amax of many calibrators at once; MSE and entropy histograms are searched in batches on their device.

    Args:
        calibrators: name to calibrator.

    Returns:
        Name to amax, 0 where every value was zero, None where the calibrator saw nothing.
    """
    result: dict[str, float | None] = {}
    batches: dict[tuple[str, int, int], list[tuple[str, HistogramCalibrator, Tensor]]] = {}
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
        counts = torch.stack([entry[2] for entry in entries])  # (H, B)
        indices = (mse_index if method == "mse" else entropy_index)(counts, bits).tolist()
        result.update((name, calibrator.at_index(index)) for (name, calibrator, _), index in zip(entries, indices))
    return {name: result[name] for name in calibrators}


def make_calibrator(method: str, bits: int = BITS) -> Calibrator:
    """An activation calibrator by name, one of ``options.CALIBRATION_METHODS``; "sqnr" begins as "mse", see ``gradient_ranges``."""
    return MaxCalibrator() if method == "max" else HistogramCalibrator("mse" if method == "sqnr" else method, bits=bits)
