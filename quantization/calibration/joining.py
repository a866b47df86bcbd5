"""Calibration by many processes, each with its own batches: what they tell each other, and how rank 0 gets all of it."""

from __future__ import annotations

from typing import Sequence

import torch

from quantization.calibration.gradient_ranges import BINS, GradientHistogram
from quantization.calibration.group_ranges import GroupCalibrator
from quantization.calibration.observation import largest_magnitudes
from quantization.distributed import RANKS
from quantization.signals import SIGNALS


def end_batch(calibrators: Sequence[GroupCalibrator]) -> None:
    """Count what one forward pass showed to all these calibrators, with one wait for the GPU.

    With many processes, those of one round of batches: each takes in all their largest values, in the order of the batches,
    before and after it counts its own, so that ranges are those of one process.

    Args:
        calibrators: of all groups, in the same order in every process.

    Raises:
        ValueError: a tensor held NaN or infinity.
    """
    observed = [
        (group, index, observation)
        for group, calibrator in enumerate(calibrators)
        for index, observation in calibrator.take_observed()
    ]
    largest = largest_magnitudes([observation for _, _, observation in observed]) if observed else []
    own = [(group, index, value) for (group, index, _), value in zip(observed, largest)]
    for rank, batch in enumerate(RANKS.exchange(own)):
        for number, (group, index, value) in enumerate(batch):
            calibrator = calibrators[group].tensor(index)
            calibrator.reach(value)
            if rank == RANKS.rank:
                calibrator.count(observed[number][2])


def join_counts(calibrators: Sequence[GroupCalibrator]) -> None:
    """Bring the counts to the host, those of all ranks to rank 0's; see ``end_batch``."""
    for calibrator in calibrators:
        calibrator.to_host()
    if not RANKS.many:
        return
    parts = RANKS.to_main(list(calibrators))
    for number, calibrator in enumerate(calibrators):
        calibrator.join([part[number] for part in parts[1:]])


def join_rows(histograms: Sequence[GradientHistogram], order: Sequence[int], device: torch.device) -> None:
    """Give rank 0 the rows of all, in the order of the images: sums over them then have one order.

    Args:
        histograms: in the same order in every rank.
        order: the rank of each image.
        device: of the model.
    """
    if not RANKS.many:
        return
    most = max(order.count(rank) for rank in range(RANKS.size))
    with SIGNALS.deferred():
        counts = RANKS.exchange([len(histogram.rows) for histogram in histograms])
        for number, histogram in enumerate(histograms):
            if not any(count[number] for count in counts):
                continue  # it does not reach the outputs
            own = torch.zeros(most, BINS, dtype=torch.float64, device=device)
            if histogram.rows:
                own[: len(histogram.rows)] = torch.stack(histogram.rows)
            parts = [iter(part) for part in RANKS.gathered(own)]
            histogram.rows = [next(parts[rank]) for rank in order] if RANKS.main else []
