"""COCO mAP by pycocotools over any predictor: a torch module, an ONNX Runtime session, a TensorRT engine. No torch."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from quantization.data.images import Batch, Loader
from quantization.distributed import RANKS, in_order
from quantization.errors import UserError
from quantization.evaluation.bootstrap import Samples, difference, half_widths, resample
from quantization.evaluation.detections import Boxes, image_detections, to_image
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.matches import box_counts, matches_of, no_matches
from quantization.evaluation.wording import difference_text, figures_text, rare_classes_text

LOG = logging.getLogger("quantization")


class Predictor(Protocol):
    """A detection network, whatever runs it."""

    def __call__(self, images: np.ndarray, /) -> Boxes:
        """From images (B, 3, H, W), float32 in 0..1, to boxes (B, boxes, 5 + classes), or to final detections."""


@dataclass(frozen=True)
class Thresholds:
    """Which boxes of a network count as detections.

    Attributes:
        confidence: minimum detection score.
        iou: overlap from which non-maximum suppression drops the weaker box.
        objectness_only: see ``detections.detections``.

    Raises:
        UserError: a threshold is not between 0 and 1.
    """

    confidence: float = 0.001
    iou: float = 0.65
    objectness_only: bool = False

    def __post_init__(self) -> None:
        for flag, value in (("--confidence", self.confidence), ("--nmsthres", self.iou)):
            if not 0 <= value <= 1:
                raise UserError(f"{flag} {value} is out of range: give 0 to 1")

    def __str__(self) -> str:
        return f"NMS IoU {self.iou:g}, confidence {self.confidence:g}"


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


@dataclass(frozen=True)
class Found:
    """The detections of a data set.

    Attributes:
        image: (N,) int64, index into ``GroundTruth.files``.
        boxes: (N, 4) float64, x1, y1, x2, y2 in pixels of the image.
        scores: (N,) float64.
        labels: (N,) int64, class.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def detect(
    predict: Predictor, loader: Loader, truth: GroundTruth, thresholds: Thresholds, description: str = "Evaluate"
) -> Found:
    """The detections of a predictor, those of one image best first; with many processes rank 0 gets those of all.

    Args:
        predict: the network.
        loader: the validation images, with many processes this one's batches; repeated ones are looked at once.
        truth: their annotations.
        thresholds: which boxes count.
        description: for the progress bar.

    Raises:
        UserError: the output's shape does not fit the number of classes.
    """
    batches = [
        _detect_batch(predict, batch, truth, thresholds)
        for batch in tqdm(loader, desc=description, unit="batch", leave=False)
    ]
    rows: dict[int, np.ndarray] = {}
    for batch in in_order(RANKS.to_main(batches)):
        for image, boxes in batch:
            rows.setdefault(image, boxes)  # a repeated image counts once
    table = np.concatenate([np.zeros((0, 7)), *rows.values()])
    return Found(table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5], table[:, 6].astype(np.int64))


def _detect_batch(
    predict: Predictor, batch: Batch, truth: GroundTruth, thresholds: Thresholds
) -> list[tuple[int, np.ndarray]]:
    """The images of a batch with their detections (N, 7): image, x1, y1, x2, y2, score, class."""
    output = predict(batch.images.astype(np.float32) / 255)
    check_classes(output, len(truth.names))
    result = []
    for place, file in enumerate(batch.files):
        image = truth.image_index(file)
        boxes = image_detections(
            output, place, thresholds.confidence, thresholds.iou, objectness_only=thresholds.objectness_only
        )
        boxes = to_image(boxes, batch.gains[place], batch.pads[place], batch.shapes[place])
        result.append((image, np.insert(boxes, 0, image, axis=1)))
    return result


def check_classes(output: Boxes, classes: int) -> None:
    """Raises a UserError if the output is not that of a network with so many classes."""
    if isinstance(output, list):
        highest = max((int(rows[:, 5].max(initial=-1)) for rows in output), default=-1)
        if highest >= classes:
            raise UserError(
                f"the network finds an object of class {highest}, counted from 0, but the data has {classes} classes: "
                "use the data that the model was trained on"
            )
    elif output.ndim != 3 or output.shape[2] != 5 + classes:
        raise UserError(
            f"the network's output has the shape {tuple(output.shape)}; (B, boxes, {5 + classes}) is expected for "
            f"{classes} classes"
        )


def evaluate(
    predict: Predictor,
    loader: Loader,
    truth: GroundTruth,
    thresholds: Thresholds = Thresholds(),
    description: str = "Evaluate",
) -> tuple[Metrics, Found]:
    """COCO mAP of a predictor, and the detections that it comes from; see ``detect``."""
    found = detect(predict, loader, truth, thresholds, description)
    return RANKS.main_only(lambda: coco_metrics(truth, found)), found


def coco_metrics(truth: GroundTruth, found: Found) -> Metrics:
    """MAP of detections by pycocotools, with its uncertainty."""
    from pycocotools.cocoeval import COCOeval

    images, names = len(truth.files), truth.names
    boxes = box_counts(truth.arrays(), images, len(names))
    counts = dict(zip(names, boxes.sum(0).tolist()))
    if not len(found.image):
        zeros = {name: 0.0 if count else -1.0 for name, count in counts.items()}
        return _with_samples(Metrics(0.0, 0.0, images, zeros, 0.0, counts), resample(no_matches(boxes)))
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    rows = np.column_stack((found.image + 1, low, high - low, found.scores, found.labels))
    with contextlib.redirect_stdout(io.StringIO()):  # its tables
        evaluation = COCOeval(truth.coco, truth.coco.loadRes(rows), "bbox")
        # figures by size are not ours to give, and cost as much as those of all sizes each
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (10 IoU, 101 recall, K classes): all areas, 100 boxes
    per_class = [float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in np.moveaxis(precision, 2, 0)]
    whole, half = (float(part[part > -1].mean()) for part in (precision, precision[0]))
    samples = resample(matches_of(evaluation, boxes))
    metrics = Metrics(whole, half, images, dict(zip(names, per_class)), float(samples.merged[0]), counts)
    return _with_samples(metrics, samples)


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
        references: name to the samples of networks that all later ones are compared with.
        conditions: images, shape and thresholds, in words.
    """

    def __init__(self, truth: GroundTruth, loader: Loader, thresholds: Thresholds) -> None:
        self.truth, self._loader, self._thresholds = truth, loader, thresholds
        self.references: dict[str, Samples] = {}
        self.conditions = f"{len(truth.files)} images, {_shape(loader)}, {thresholds}"
        rare = rare_classes_text(truth.names, box_counts(truth.arrays(), len(truth.files), len(truth.names)).sum(0))
        if rare:
            LOG.info("%s", rare)

    def __call__(self, predict: Predictor, label: str, quiet: bool = False) -> Metrics:
        """The mAP, logged as well unless ``quiet``."""
        return self.measure(predict, label, quiet)[0]

    def measure(self, predict: Predictor, label: str, quiet: bool = False) -> tuple[Metrics, Found]:
        """The mAP and the detections."""
        metrics, found = evaluate(predict, self._loader, self.truth, self._thresholds, f"Evaluate {label}")
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
