"""How far the detections of one network are from another's on the same images: in pixels, overlap and score. No torch.

What is quantized, or computed in FP16, moves boxes a little and scores a little more. A miscompiled engine moves boxes
without bound while its scores stay right, which no figure about scores or about all outputs at once tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

CONFIDENT = 0.25  # score of a detection that must be found again, as in upstream's detect.py
STILL_FOUND = 0.1  # score that the other network's must have: one near the threshold is neither lost nor new
SAME = 0.3  # IoU from which two boxes of a class are taken for one object's
FEWEST = 10  # detections that a verdict takes
BEST_ROWS = 50  # of an image, where rows are compared
# limits of noise: some five times what 8 bits did to yolov5n (docs/end2end.md)
MOST_WRONG = 0.2  # share of detections that are lost or moved, and of new ones
MOVED = 0.6  # IoU under which a box has moved
LEAST_MEDIAN_IOU = 0.85


@dataclass(frozen=True, eq=False)
class BoxDifferences:
    """Detections of a candidate against those of a reference.

    Attributes:
        images: number of images.
        what: is compared, for the text.
        count: how many of the reference there are.
        lost: those without one of the candidate.
        new: confident detections of the candidate without one of the reference.
        pixels: (M,) largest distance of a side, of each pair; pixels of the network's input.
        ious: (M,) overlap of each pair.
        scores: (M,) score of the candidate less that of the reference, of each pair.
    """

    images: int
    what: str
    count: int
    lost: int
    new: int
    pixels: np.ndarray
    ious: np.ndarray
    scores: np.ndarray

    @property
    def is_enough(self) -> bool:
        """Whether there is enough to judge."""
        return max(self.count, self.new) >= FEWEST

    @property
    def is_suspicious(self) -> bool:
        """Whether boxes are further away than quantization moves them."""
        if not self.is_enough:
            return False
        wrong = max(self.lost + int((self.ious < MOVED).sum()), self.new)
        shifted = len(self.ious) > 0 and float(np.median(self.ious)) < LEAST_MEDIAN_IOU
        return wrong > MOST_WRONG * self.count or shifted

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.is_enough:
            return f"too few for a verdict, which takes {FEWEST}"
        return (
            "SUSPICIOUS, far more than quantization noise" if self.is_suspicious else "no more than quantization noise"
        )

    def __str__(self) -> str:
        counts = f"{self.count} {self.what} in {self.images} images, {self.lost} lost, {self.new} new"
        if not len(self.ious):
            return f"{counts}: {self.verdict}"
        return (
            f"{counts}; boxes differ by {np.median(self.pixels):.2g} pixels (median), {self.pixels.max():.3g} at most, IoU "
            f"{np.median(self.ious):.3f} (median), {self.ious.min():.3f} at least, scores by "
            f"{np.median(np.abs(self.scores)):.2g} (median), {np.abs(self.scores).max():.2g} at most: {self.verdict}"
        )


def box_differences(reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray]) -> BoxDifferences:
    """Compare detections.

    Args:
        reference: of each image (N, 6): x1, y1, x2, y2 in pixels, score, class.
        candidate: of the same images, down to a score of ``STILL_FOUND`` at least.
    """
    confident = lost = new = 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for ours, theirs in zip(reference, candidate):
        matched = _matches(ours[ours[:, 4] >= STILL_FOUND], theirs[theirs[:, 4] >= STILL_FOUND])
        pairs += [pair for pair in matched if pair[0][4] >= CONFIDENT]
        count = int((ours[:, 4] >= CONFIDENT).sum())
        confident += count
        lost += count - sum(int(pair[0][4] >= CONFIDENT) for pair in matched)
        new += int((theirs[:, 4] >= CONFIDENT).sum()) - sum(int(pair[1][4] >= CONFIDENT) for pair in matched)
    first, second = (np.array([pair[side] for pair in pairs]).reshape(-1, 6) for side in (0, 1))
    return _of_pairs(len(reference), ("confident detections", confident, lost, new), first, second)


def row_differences(reference: np.ndarray, candidate: np.ndarray) -> BoxDifferences:
    """Compare the best rows of each image, each with the same row of the other network, whatever their scores.

    For images on which nothing is found.

    Args:
        reference: rows (B, N, 5 + C), before suppression.
        candidate: of the same network in another form.
    """
    scores = [rows[..., 4] * rows[..., 5:].max(2) for rows in (reference, candidate)]
    best = np.argsort(-scores[0], axis=1, kind="stable")[:, :BEST_ROWS, None]
    pairs = []
    for rows, score in zip((reference, candidate), scores):
        centre, half = rows[..., :2], rows[..., 2:4] / 2
        table = np.concatenate((centre - half, centre + half, score[..., None]), axis=2)
        pairs.append(np.take_along_axis(table, best, 1).reshape(-1, 5).astype(np.float64))
    return _of_pairs(len(reference), ("best rows", len(pairs[0]), 0, 0), *pairs)


def _of_pairs(images: int, counts: tuple[str, int, int, int], first: np.ndarray, second: np.ndarray) -> BoxDifferences:
    """From pairs of boxes with their scores, (M, 5+) each; ``counts``: what is compared, how many, lost, new."""
    pixels = np.abs(first[:, :4] - second[:, :4]).max(1, initial=0)
    return BoxDifferences(images, *counts, pixels, paired_ious(first, second), second[:, 4] - first[:, 4])


def _matches(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs that are one object's."""
    return [(ours[row], theirs[column]) for row, column, _ in matching_boxes(ours, theirs, SAME)]


def matching_boxes(ours: np.ndarray, theirs: np.ndarray, least: float) -> list[tuple[int, int, float]]:
    """Pairs of boxes of one class, those that overlap most first; each box is in one at most.

    Args:
        ours: (N, 5+): x1, y1, x2, y2 first, the class last.
        theirs: likewise (M, 5+).
        least: IoU of a pair.

    Returns:
        Indices into both, and the IoU.
    """
    overlap = paired_ious(ours[:, None], theirs[None]) * (ours[:, None, -1] == theirs[None, :, -1])
    found = []
    while overlap.size and overlap.max() >= least:
        row, column = (int(index) for index in np.unravel_index(overlap.argmax(), overlap.shape))
        found.append((row, column, float(overlap[row, column])))
        overlap[row], overlap[:, column] = 0, 0
    return found


def paired_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4+) with boxes (..., 4+), broadcast; 0 if they have no area or are not finite."""
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:4], second[..., 2:4])
    inter = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(boxes[..., 2:4] - boxes[..., :2], 0), axis=-1) for boxes in (first, second)]
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(inter / np.maximum(areas[0] + areas[1] - inter, 1e-9))
