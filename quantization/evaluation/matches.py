"""Which detections of an evaluation are right, image by image: what a bootstrap resamples. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantization.evaluation.ground_truth import TrueBoxes
from quantization.evaluation.matching import Pairs


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


def matches_of(pairs: Pairs, boxes: np.ndarray) -> Matches:
    """What pycocotools found, in the order in which it ranks equal scores: by class, then by image.

    Args:
        pairs: of all images.
        boxes: see ``Matches``.
    """
    return Matches(
        np.repeat(pairs.image, pairs.detections),
        np.repeat(pairs.label, pairs.detections),
        pairs.scores,
        pairs.matched & ~pairs.ignored,
        pairs.ignored,
        boxes,
    )
