"""The tensors of a group as torch shows them, and their scale by the gradients of the detections."""

from __future__ import annotations

import math
from typing import Mapping, Optional, Sequence

from torch import Tensor, nn

from quantization.calibration.gradient_ranges import GradientHistogram, best_amax
from quantization.calibration.observation import Observation, observe
from quantization.quantizers.pass_memo import TensorMemo
from quantization.ranges.group_scales import GroupScale, OtherScale, SharedTensors
from quantization.ranges.histograms import HistogramCalibrator
from quantization.ranges.levels import BITS

# group name to the gradients of the detections for each of its tensors; None: all zeros, or it does not reach them
Gradients = Mapping[str, Sequence[Optional[GradientHistogram]]]


class GroupCalibrator(SharedTensors):
    """Collects the distinct tensors that the quantizers of one group read.

    The arguments and attributes are those of ``SharedTensors``.
    """

    def __init__(self, method: str, bits: int = BITS) -> None:
        super().__init__(method, bits)
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

    def to_host(self) -> None:
        """Bring the counts to the host, where ranges are chosen."""
        for tensor in self.tensors:
            if isinstance(tensor, HistogramCalibrator):
                tensor.by_weight = {weight: counts.cpu() for weight, counts in tensor.by_weight.items()}


class Collector(nn.Module):
    """Stands in for a quantizer during calibration: shows every tensor to the group's calibrator, unchanged."""

    def __init__(self, calibrator: GroupCalibrator, place: str) -> None:
        super().__init__()
        self.calibrator, self.place = calibrator, place

    def forward(self, x: Tensor) -> Tensor:
        """``x``, observed."""
        self.calibrator.collect(x, self.place)
        return x


def detection_scales(calibrators: Mapping[str, SharedTensors], choice: str, gradients: Gradients) -> OtherScale:
    """For ``group_scales``: the scale of each group whose tensors reach the detections, from their gradients.

    Args:
        calibrators: name to calibrator.
        choice: one of ``options.GROUP_SCALES``; "error" and "joint" both minimise the error in the detections.
        gradients: by the same names (method "sqnr").
    """

    def scale(name: str, own: Sequence[float]) -> GroupScale | None:
        probed = gradients[name]
        if all(histogram is None for histogram in probed):
            return None
        return scale_by_detections(calibrators[name], probed, own, choice)

    return scale


def scale_by_detections(
    calibrator: SharedTensors, gradients: Sequence[GradientHistogram | None], own: Sequence[float], choice: str
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
