"""COCO mAP of a predictor by pycocotools, with its uncertainty. No torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Callable, Iterable, Sequence

import numpy as np

from quantization.data.images import Loader
from quantization.distributed import RANKS
from quantization.evaluation.bootstrap import Samples, difference, half_widths, resample
from quantization.evaluation.detecting import Detector, Found, Predictor, Thresholds, detect
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.match_processes import MatchProcesses
from quantization.evaluation.matches import box_counts, matches_of, no_matches
from quantization.evaluation.matching import ImagePart, Pairs, joined_pairs, match_part, precisions
from quantization.evaluation.wording import difference_text, figures_text, rare_classes_text

LOG = logging.getLogger("quantization")
AT_ONCE = 64  # images that are matched together: their boxes are dictionaries meanwhile


@dataclass
class Metrics:
    """What pycocotools measured, from 0 to 1.

    Attributes:
        map: mAP@0.5:0.95, the mean over the classes that have boxes.
        map50: mAP@0.5, likewise.
        images: number of images.
        per_class: class name to AP@0.5:0.95; -1 where a class has no box, which the means leave out.
        merged: AP@0.5:0.95 with the detections of all classes in one ranking: every box counts the same, where in the
            mean over classes the only box of a class counts as much as the thousand of another.
        boxes: class name to number of annotated boxes.
        conditions: images, shape and thresholds, in words.
        plus_minus: half of the width of each figure's 95 % interval, by the bootstrap over images; None: it has none.
        against: name of a reference to the difference, in points, see ``bootstrap.difference``.
        samples: what differences to other networks come from; not in ``content``.
    """

    map: float
    map50: float
    images: int
    per_class: dict[str, float]
    merged: float
    boxes: dict[str, int] = field(default_factory=dict)
    conditions: str = ""
    plus_minus: dict[str, Any] = field(default_factory=dict)
    against: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False, compare=False)

    def content(self) -> dict[str, Any]:
        """Plain values, for JSON; ``Metrics(**content)`` is the same but for its samples."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "samples"}


def evaluate(
    predict: Predictor | Detector,
    loader: Loader,
    truth: GroundTruth,
    thresholds: Thresholds = Thresholds(),
    description: str = "Evaluate",
) -> tuple[Metrics, Found]:
    """COCO mAP of a predictor, and the detections that it comes from; see ``detect``."""
    with MatchProcesses(len(truth.files) if RANKS.main else 0, RANKS.size) as processes:
        found = detect(predict, loader, truth, thresholds, description)
        return RANKS.main_only(lambda: coco_metrics(truth, found, processes.match)), found


def coco_metrics(
    truth: GroundTruth, found: Found, match: Callable[[Sequence[ImagePart]], Iterable[Pairs]] = partial(map, match_part)
) -> Metrics:
    """MAP of detections by pycocotools, with its uncertainty; ``match`` is what ``match_part`` is for each."""
    images, names = len(truth.files), truth.names
    boxes = box_counts(truth.arrays(), images, len(names))
    counts = dict(zip(names, boxes.sum(0).tolist()))
    if not len(found.image):
        zeros = {name: 0.0 if count else -1.0 for name, count in counts.items()}
        return _with_samples(Metrics(0.0, 0.0, images, zeros, 0.0, counts), resample(no_matches(boxes)))
    pairs = joined_pairs(list(match(_parts(truth, found))))
    precision = precisions(pairs, images, len(names))
    per_class = [float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in np.moveaxis(precision, 2, 0)]
    whole, half = (float(part[part > -1].mean()) for part in (precision, precision[0]))
    samples = resample(matches_of(pairs, boxes))
    metrics = Metrics(whole, half, images, dict(zip(names, per_class)), float(samples.merged[0]), counts)
    return _with_samples(metrics, samples)


def _parts(truth: GroundTruth, found: Found) -> list[ImagePart]:
    """All images with their boxes and detections, some at a time."""
    true, order = truth.arrays(), np.argsort(found.image, kind="stable")
    image = found.image[order]
    starts = range(0, len(truth.files), AT_ONCE)
    limits = [*starts, len(truth.files)]
    edges, found_edges = np.searchsorted(true.image, limits), np.searchsorted(image, limits)
    parts = []
    for number, first in enumerate(starts):
        own, rows = slice(*edges[number : number + 2]), order[slice(*found_edges[number : number + 2])]
        parts.append(
            ImagePart(
                first,
                limits[number + 1] - first,
                len(truth.names),
                *(part[own] for part in (true.image, true.boxes, true.labels, true.crowd)),
                *(part[rows] for part in (found.image, found.boxes, found.scores, found.labels)),
            )
        )
    return parts


def _with_samples(metrics: Metrics, samples: Samples) -> Metrics:
    """Figures with their intervals."""
    metrics.samples, metrics.plus_minus = samples, half_widths(samples, list(metrics.per_class))
    return metrics


class Evaluator:
    """MAP of predictors over one data set.

    Args:
        truth: the annotations.
        loader: of the validation images, in the size of the network's input.
        thresholds: which boxes count as detections.

    Attributes:
        truth: the annotations.
        thresholds: which boxes count as detections.
        references: name to the samples of networks that all later ones are compared with.
        conditions: images, shape and thresholds, in words.
    """

    def __init__(self, truth: GroundTruth, loader: Loader, thresholds: Thresholds) -> None:
        self.truth, self._loader, self.thresholds = truth, loader, thresholds
        self.references: dict[str, Samples] = {}
        self.conditions = f"{len(truth.files)} images, {_shape(loader)}, {thresholds}"
        rare = rare_classes_text(truth.names, box_counts(truth.arrays(), len(truth.files), len(truth.names)).sum(0))
        if rare:
            LOG.info("%s", rare)

    def __call__(self, predict: Predictor | Detector, label: str, quiet: bool = False) -> Metrics:
        """The mAP, logged as well unless ``quiet``."""
        return self.measure(predict, label, quiet)[0]

    def measure(self, predict: Predictor | Detector, label: str, quiet: bool = False) -> tuple[Metrics, Found]:
        """The mAP and the detections."""
        metrics, found = evaluate(predict, self._loader, self.truth, self.thresholds, f"Evaluate {label}")
        assert metrics.samples is not None  # coco_metrics gives them
        metrics.conditions = self.conditions
        metrics.against = {
            name: difference(metrics.samples, samples, self.truth.names) for name, samples in self.references.items()
        }
        if not quiet:
            LOG.info("%s: %s (95 %%; %s)", label, figures_text(metrics.content()), metrics.conditions)
            for name, found_difference in metrics.against.items():
                LOG.info("  %s", difference_text(found_difference, name))
        return metrics, found


def _shape(loader: Loader) -> str:
    """What images look like to the network."""
    height, width = loader.size
    if loader.rect_stride is not None:
        return f"rectangles up to {max(loader.size)}"
    return f"squares of {height}" if height == width else f"{height} x {width}"
