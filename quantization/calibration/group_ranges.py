"""One scale for the tensors of a group: a histogram for each distinct tensor, and an amax that suits all of them.

A tensor that three convolutions read counts once. The published tool lets all readers fill one histogram, so a tensor
counts as often as it is read, and large tensors outweigh small ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

import torch
from torch import Tensor, nn

from quantization.calibration.gradient_ranges import GradientHistogram, best_amax
from quantization.calibration.histograms import (
    Calibrator,
    HistogramCalibrator,
    Observation,
    compute_amax_all,
    make_calibrator,
    observe,
)
from quantization.calibration.range_search import first_candidate, squared_errors
from quantization.quantizers.levels import BITS
from quantization.quantizers.pass_memo import TensorMemo

WARN_RATIO = 4.0  # two of eight bits

# group name to the gradients of the detections for each of its tensors; None: all zeros, or it does not reach them
Gradients = Mapping[str, Sequence[Optional[GradientHistogram]]]


class GroupCalibrator:
    """Collects the distinct tensors that the quantizers of one group read.

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
        self._seen = TensorMemo()  # index in tensors
        self._observed: list[tuple[int, Observation]] = []  # index in tensors

    def collect(self, x: Tensor, place: str) -> None:
        """Observe ``x`` unless it came by in this forward pass already; ``end_batch`` counts it."""
        index = self._seen.find(x)
        if index is None:
            index = len(self._seen)
            self._seen.add(x, index)
            self.tensor(index)
            self._observed.append((index, observe(x)))
        if place not in self.readers[index]:
            self.readers[index].append(place)

    def tensor(self, index: int) -> Calibrator:
        """The calibrator of a tensor; a new one, of one that another process saw first."""
        while index >= len(self.tensors):
            self.tensors.append(make_calibrator(self.method, self.bits))
            self.readers.append([])
        return self.tensors[index]

    def take_observed(self) -> list[tuple[int, Observation]]:
        """What this forward pass showed, by the index of the tensor; the next pass starts afresh."""
        observed, self._observed = self._observed, []
        self._seen.clear()
        return observed

    def join(self, others: Sequence[GroupCalibrator]) -> None:
        """Add what calibrators of the same group, and in the same ranges, have counted in other processes."""
        for other in others:
            for index, (theirs, readers) in enumerate(zip(other.tensors, other.readers)):
                mine = self.tensor(index)
                self.readers[index] += [place for place in readers if place not in self.readers[index]]
                if isinstance(mine, HistogramCalibrator) and isinstance(theirs, HistogramCalibrator):
                    for weight, counts in theirs.by_weight.items():
                        mine.add(weight, counts)

    def move(self, device: torch.device) -> None:
        """Move the counts to a device."""
        for tensor in self.tensors:
            if isinstance(tensor, HistogramCalibrator):
                tensor.by_weight = {weight: counts.to(device) for weight, counts in tensor.by_weight.items()}


class Collector(nn.Module):
    """Stands in for a quantizer during calibration: shows every tensor to the group's calibrator, unchanged."""

    def __init__(self, calibrator: GroupCalibrator, place: str) -> None:
        super().__init__()
        self.calibrator, self.place = calibrator, place

    def forward(self, x: Tensor) -> Tensor:
        """``x``, observed."""
        self.calibrator.collect(x, self.place)
        return x


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


def group_scales(
    calibrators: Mapping[str, GroupCalibrator], choice: str = "error", gradients: Gradients | None = None
) -> dict[str, GroupScale | None]:
    """The amax of every group.

    Args:
        calibrators: name to calibrator.
        choice: for groups of several tensors: "error" minimises the sum over the tensors of the squared quantization
            error divided by the tensor's energy, "joint" calibrates the sum of the histograms, "max" takes the largest
            amax (as YOLOv6 does). Without histograms (method "max") it is always "max"; where the gradients of the
            detections are known, "error" and "joint" both minimise the error there.
        gradients: of the detections, by the same names (method "sqnr").

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
        probed = (gradients or {}).get(name, [])
        if not amax:
            result[name] = None
        elif not any(amax):  # zeros are exact at any scale, and TensorRT refuses zero
            result[name] = GroupScale(1.0, calibrator.readers, [1.0] * len(amax), [0.0] * len(amax))
        elif any(histogram is not None for histogram in probed):
            result[name] = scale_by_detections(calibrator, probed, amax, choice)
        else:
            result[name] = scale_by_values(calibrator, amax, choice)
    return result


def scale_by_values(calibrator: GroupCalibrator, own: Sequence[float], choice: str) -> GroupScale:
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


def scale_by_detections(
    calibrator: GroupCalibrator, gradients: Sequence[GradientHistogram | None], own: Sequence[float], choice: str
) -> GroupScale:
    """A group's scale from the gradients of the detections.

    Args:
        calibrator: that has seen values other than zero.
        gradients: of each tensor; None where it does not reach the detections, but for one at least.
        own: each tensor's amax with the smallest squared error, used for a tensor that does not reach the detections.
        choice: one of ``options.GROUP_SCALES``.
    """
    probed = [histogram for histogram in gradients if histogram is not None]
    alone = [amax if histogram is None else best_amax([histogram]) for amax, histogram in zip(own, gradients)]
    shared = max(alone) if choice == "max" or len(alone) == 1 else best_amax(probed)
    cost = [
        0.0 if histogram is None else 10 * math.log10(histogram.energy(shared) / histogram.energy(amax))
        for amax, histogram in zip(alone, gradients)
    ]
    return GroupScale(shared, calibrator.readers, [amax or shared for amax in alone], cost)


def filled_counts(histogram: HistogramCalibrator) -> Tensor:
    """A histogram's counts (num_bins,), of one that has seen values other than zero."""
    counts = histogram.counts
    if counts is None:
        raise ValueError("the histogram is empty")
    return counts


def error_at(histogram: HistogramCalibrator, amax: float) -> float:
    """Squared error of a histogram's values at one amax, in squared bins; above zero."""
    counts, width = filled_counts(histogram), histogram.range / histogram.num_bins
    bins = torch.full((1,), amax / width, dtype=torch.float64, device=counts.device)
    return float(squared_errors(counts, bins, histogram.bits)[0].clamp(min=1e-30))


def least_error_amax(histograms: Sequence[HistogramCalibrator]) -> float:
    """The amax with the smallest sum over the tensors of squared error / energy, each in units of its own bins."""
    reach = max(histogram.range for histogram in histograms)
    num_bins, bits, device = histograms[0].num_bins, histograms[0].bits, filled_counts(histograms[0]).device
    centres = torch.arange(num_bins, dtype=torch.float64, device=device) + 0.5
    candidates = centres[first_candidate(bits) :] * reach / num_bins
    total = torch.zeros_like(candidates)
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
    total = torch.zeros_like(filled_counts(first))
    centres = torch.arange(result.num_bins, device=total.device) + 0.5
    for histogram in histograms:
        bins = (centres * (histogram.range / result.range)).long()
        total.scatter_add_(0, bins, filled_counts(histogram))
    result.add(1.0, total)
    return result
