"""One scale for the tensors of a group: a histogram for each distinct tensor, and an amax that suits all of them.

A tensor that three convolutions read counts once. The published tool lets all readers fill one histogram, so a tensor
counts as often as it is read, and large tensors outweigh small ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Collection, Mapping, Optional, Sequence

import numpy as np

from quantization.ranges.histograms import Calibrator, HistogramCalibrator, compute_amax_all, make_calibrator
from quantization.ranges.levels import BITS
from quantization.ranges.range_search import first_candidate, squared_errors

WARN_RATIO = 4.0  # two of eight bits


class SharedTensors:
    """The distinct tensors that the quantizers of one group read.

    Args:
        method: activation calibration, one of ``options.CALIBRATION_METHODS``.
        bits: width of the group's quantizer.

    Attributes:
        tensors: a calibrator for each distinct tensor, in the order of the forward pass.
        readers: the places that read each of them.
    """

    def __init__(self, method: str, bits: int = BITS) -> None:
        self.method, self.bits = method, bits
        self.tensors: list[Calibrator] = []
        self.readers: list[list[str]] = []

    def tensor(self, index: int) -> Calibrator:
        """The calibrator of a tensor; a new one, of one that is new here."""
        while index >= len(self.tensors):
            self.tensors.append(make_calibrator(self.method, self.bits))
            self.readers.append([])
        return self.tensors[index]

    def read_by(self, places: Collection[str]) -> SharedTensors:
        """The tensors that some of the places read, and those readers; the counts are shared, not copied."""
        part = SharedTensors(self.method, self.bits)
        for tensor, readers in zip(self.tensors, self.readers):
            mine = [place for place in readers if place in places]
            if mine:
                part.tensors.append(tensor)
                part.readers.append(mine)
        return part


@dataclass
class GroupScale:
    """What sharing one scale means for a group.

    Attributes:
        amax: of the group.
        readers: the places that read each distinct tensor.
        own: the amax that each distinct tensor would have alone; the group's for one whose values were all zero.
        cost_db: signal-to-noise ratio that each loses by sharing, in decibels; empty without histograms.
    """

    amax: float
    readers: list[list[str]]
    own: list[float]
    cost_db: list[float]

    @property
    def ratio(self) -> float:
        """Largest own amax over the smallest."""
        return max(self.own) / min(self.own)

    def advice(self) -> str | None:
        """What to do about a group whose tensors differ by more than ``WARN_RATIO``; None for the others."""
        if self.ratio <= WARN_RATIO:
            return None
        loser = (
            max(range(len(self.own)), key=lambda index: self.cost_db[index])
            if self.cost_db
            else min(range(len(self.own)), key=lambda index: self.own[index])
        )
        cost = f" by {self.cost_db[loser]:.1f} dB" if self.cost_db else ""
        return (
            f"the tensors of {', '.join(self.readers[loser])} and its group differ {self.ratio:.1f}-fold in amax; "
            f"sharing lowers its signal-to-noise ratio{cost}. If the accuracy suffers, leave "
            f"{', '.join(self.readers[loser])} in float (--ignore-policy): one Reformat for each Concat between them"
        )


# a group's name and the amax that each of its tensors would have alone, to its scale; None: that of the values counts
OtherScale = Callable[[str, Sequence[float]], Optional[GroupScale]]


def group_scales(
    calibrators: Mapping[str, SharedTensors], choice: str = "error", other: OtherScale | None = None
) -> dict[str, GroupScale | None]:
    """The amax of every group.

    Args:
        calibrators: name to calibrator.
        choice: for groups of several tensors: "error" minimises the sum over the tensors of the squared quantization
            error divided by the tensor's energy, "joint" calibrates the sum of the histograms, "max" takes the largest
            amax (as YOLOv6 does). Without histograms (method "max") it is always "max".
        other: gives a group's scale from what else is known of its tensors than their values, or None.

    Returns:
        Name to scale, or None where no tensor was seen.
    """
    singles = {
        f"{name}/{number}": tensor
        for name, calibrator in calibrators.items()
        for number, tensor in enumerate(calibrator.tensors)
    }
    own = compute_amax_all(singles)
    result: dict[str, GroupScale | None] = {}
    for name, calibrator in calibrators.items():
        amax = [own[f"{name}/{number}"] or 0.0 for number in range(len(calibrator.tensors))]
        if not amax:
            result[name] = None
        elif not any(amax):  # zeros are exact at any scale, and TensorRT refuses zero
            result[name] = GroupScale(1.0, calibrator.readers, [1.0] * len(amax), [0.0] * len(amax))
        else:
            found = other(name, amax) if other is not None else None
            result[name] = found or scale_by_values(calibrator, amax, choice)
    return result


def scale_by_values(calibrator: SharedTensors, own: Sequence[float], choice: str) -> GroupScale:
    """A group's scale from the tensors' values.

    Args:
        calibrator: that has seen values other than zero.
        own: each tensor's own amax, 0 where every value was zero.
        choice: one of ``options.GROUP_SCALES``.
    """
    histograms = [
        tensor if isinstance(tensor, HistogramCalibrator) and tensor.counts is not None else None
        for tensor in calibrator.tensors
    ]
    filled = [histogram for histogram in histograms if histogram is not None]
    if len(filled) < 2 or choice == "max":
        shared = max(own)
    elif choice == "joint":
        shared = joint_histogram(filled).compute_amax() or max(own)
    else:
        shared = least_error_amax(filled)
    cost = [
        0.0 if histogram is None else 10 * math.log10(error_at(histogram, shared) / error_at(histogram, alone))
        for histogram, alone in zip(histograms, own)
    ]
    return GroupScale(shared, calibrator.readers, [alone or shared for alone in own], cost if filled else [])


def filled_counts(histogram: HistogramCalibrator) -> np.ndarray:
    """A histogram's counts (num_bins,), of one that has seen values other than zero."""
    counts = histogram.counts
    if counts is None:
        raise ValueError("the histogram is empty")
    return counts


def error_at(histogram: HistogramCalibrator, amax: float) -> float:
    """Squared error of a histogram's values at one amax, in squared bins; above zero."""
    counts, width = filled_counts(histogram), histogram.range / histogram.num_bins
    return max(1e-30, float(squared_errors(counts, np.array([amax / width]), histogram.bits)[0]))


def least_error_amax(histograms: Sequence[HistogramCalibrator]) -> float:
    """The amax with the smallest sum over the tensors of squared error / energy, each in units of its own bins."""
    reach = max(histogram.range for histogram in histograms)
    num_bins, bits = histograms[0].num_bins, histograms[0].bits
    centres = np.arange(num_bins) + 0.5
    candidates = centres[first_candidate(bits) :] * reach / num_bins
    total = np.zeros_like(candidates)
    for histogram in histograms:
        counts, width = filled_counts(histogram), histogram.range / num_bins
        energy = (counts * centres * centres).sum()
        total += squared_errors(counts, candidates / width, bits) / energy
    return float(candidates[total.argmin()])


def joint_histogram(histograms: Sequence[HistogramCalibrator]) -> HistogramCalibrator:
    """One histogram of all tensors: bins are put where their centres lie in the widest range."""
    first = histograms[0]
    result = HistogramCalibrator(first.method, first.percentile, first.num_bins, first.bits)
    result.seen, result.range = True, max(histogram.range for histogram in histograms)
    total = np.zeros(result.num_bins)
    centres = np.arange(result.num_bins) + 0.5
    for histogram in histograms:
        bins = (centres * (histogram.range / result.range)).astype(np.int64)
        total += np.bincount(bins, filled_counts(histogram), result.num_bins)
    result.add(1.0, total)
    return result
