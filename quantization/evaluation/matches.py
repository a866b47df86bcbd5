"""Which detections of an evaluation are right, image by image: what a bootstrap resamples. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quantization.evaluation.ground_truth import TrueBoxes


@dataclass(frozen=True)
class Matches:
    """The detections of a data set, as pycocotools matched them to boxes: T thresholds of IoU, D detections.

    Attributes:
        image: (D,) int64, index of the image.
        label: (D,) int64, class.
        scores: (D,) float64.
        correct: (T, D) bool, matched to a box.
        ignored: (T, D) bool, matched to a crowd: counts neither way.
        boxes: (images, classes) int64, number of annotated boxes without crowds.
    """

    image: np.ndarray
    label: np.ndarray
    scores: np.ndarray
    correct: np.ndarray
    ignored: np.ndarray
    boxes: np.ndarray


def box_counts(truth: TrueBoxes, images: int, classes: int) -> np.ndarray:
    """How many boxes there are of each class in each image, without crowds: (images, classes) int64."""
    counts = np.zeros((images, classes), np.int64)
    np.add.at(counts, (truth.image[~truth.crowd], truth.labels[~truth.crowd]), 1)
    return counts


def no_matches(boxes: np.ndarray, thresholds: int = 10) -> Matches:
    """Those of a network that finds nothing; ``boxes`` as in ``Matches``."""
    none, flags = np.zeros(0, np.int64), np.zeros((thresholds, 0), bool)
    return Matches(none, none, np.zeros(0), flags, flags, boxes)


def matches_of(evaluation: Any, boxes: np.ndarray) -> Matches:
    """What a COCOeval found, in the order in which it ranks equal scores: by class, then by image.

    Args:
        evaluation: its ``evaluate`` has run, over boxes of all areas alone, with image ids from 1 on and class numbers
            as category ids.
        boxes: see ``Matches``.
    """
    parts = [part for part in evaluation.evalImgs if part is not None and len(part["dtScores"])]
    if not parts:
        return no_matches(boxes, len(evaluation.params.iouThrs))
    counts = [len(part["dtScores"]) for part in parts]
    ignored = np.concatenate([part["dtIgnore"] for part in parts], 1).astype(bool)
    return Matches(
        np.repeat([part["image_id"] - 1 for part in parts], counts),
        np.repeat([part["category_id"] for part in parts], counts),
        np.concatenate([part["dtScores"] for part in parts]),
        (np.concatenate([part["dtMatches"] for part in parts], 1) != 0) & ~ignored,
        ignored,
        boxes,
    )
