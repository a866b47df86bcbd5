"""COCO mAP by pycocotools over any predictor: a torch module, an ONNX Runtime session, a TensorRT engine. No torch."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, List, Protocol, Sequence, Tuple, runtime_checkable

import numpy as np

from quantization.data.dataset import Dataset
from quantization.data.images import Batch, Loader
from quantization.distributed import RANKS, in_order
from quantization.errors import UserError
from quantization.evaluation.detections import detections, to_image
from quantization.evaluation.ground_truth import GroundTruth
from quantization.progress_bar import progress_bar

# images of a batch with their detections (N, 7): image, x1, y1, x2, y2, score, class
Rows = List[Tuple[int, np.ndarray]]
LOG = logging.getLogger("quantization")


class Predictor(Protocol):
    """A detection network, whatever runs it."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """From images (B, 3, H, W), float32 in 0..1, to boxes (B, boxes, 5 + classes), which no later call changes."""


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


@runtime_checkable
class Detector(Protocol):
    """A detection network that finds its boxes itself, where its outputs lie.

    ``detect`` is called in another thread than ``forward``, while that works on the next batch.
    """

    def forward(self, images: np.ndarray, /) -> Any:
        """From images (B, 3, H, W) uint8 to boxes (B, boxes, 5 + classes), which may not be computed yet."""

    def detect(self, output: Any, thresholds: Thresholds, /) -> list[np.ndarray]:
        """What ``detections`` gives for each image of an output."""


class HostDetector:
    """Any predictor, with non-maximum suppression in numpy."""

    def __init__(self, predict: Predictor) -> None:
        self._predict = predict

    def forward(self, images: np.ndarray) -> np.ndarray:
        """See ``Detector.forward``."""
        return self._predict(images.astype(np.float32) / 255)

    def detect(self, output: np.ndarray, thresholds: Thresholds) -> list[np.ndarray]:
        """See ``Detector.detect``."""
        only = thresholds.objectness_only
        return [detections(image, thresholds.confidence, thresholds.iou, objectness_only=only) for image in output]


@dataclass
class Metrics:
    """What pycocotools measured, from 0 to 1.

    Attributes:
        map: mAP@0.5:0.95, the mean over the classes that have boxes.
        map50: mAP@0.5, likewise.
        images: number of images.
        per_class: class name to AP@0.5:0.95; -1 where a class has no box, which the means leave out.
    """

    map: float
    map50: float
    images: int
    per_class: dict[str, float]


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
    predict: Predictor | Detector,
    loader: Loader,
    truth: GroundTruth,
    thresholds: Thresholds,
    description: str = "Evaluate",
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
    batches = _detect_batches(predict, loader, truth, thresholds, description)
    rows: dict[int, np.ndarray] = {}
    for batch in in_order(RANKS.to_main(batches)):
        for image, boxes in batch:
            rows.setdefault(image, boxes)  # a repeated image counts once
    table = np.concatenate([np.zeros((0, 7)), *rows.values()])
    return Found(table[:, 0].astype(np.int64), table[:, 1:5], table[:, 5], table[:, 6].astype(np.int64))


def _detect_batches(
    predict: Predictor | Detector, loader: Loader, truth: GroundTruth, thresholds: Thresholds, description: str
) -> list[Rows]:
    """The detections of this process's batches: while one goes through the network, a thread finds the last one's boxes."""
    network = predict if isinstance(predict, Detector) else HostDetector(predict)
    found: list[Rows] = []
    pending: deque[Future[Rows]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for batch in progress_bar(loader, title=description, unit="batch"):
            output = network.forward(batch.images)
            _check_shape(output, len(truth.names))
            pending.append(pool.submit(_boxes_of, network, output, batch, truth, thresholds))
            if len(pending) > 1:  # no more than two outputs at a time
                found.append(pending.popleft().result())
        return found + [future.result() for future in pending]


def _check_shape(output: Any, classes: int) -> None:
    """Raises a UserError if the output is not that of a network with so many classes."""
    if output.ndim != 3 or output.shape[2] != 5 + classes:
        raise UserError(
            f"the network's output has the shape {tuple(output.shape)}; (B, boxes, {5 + classes}) is expected for "
            f"{classes} classes"
        )


def _boxes_of(network: Detector, output: Any, batch: Batch, truth: GroundTruth, thresholds: Thresholds) -> Rows:
    """The images of a batch with their detections, in pixels of the image files."""
    rows = []
    for place, boxes in enumerate(network.detect(output, thresholds)):
        image = truth.image_index(batch.files[place])
        boxes = to_image(boxes, batch.gains[place], batch.pads[place], batch.shapes[place])
        rows.append((image, np.insert(boxes, 0, image, axis=1)))
    return rows


def evaluate(
    predict: Predictor | Detector,
    loader: Loader,
    truth: GroundTruth,
    thresholds: Thresholds = Thresholds(),
    description: str = "Evaluate",
) -> tuple[Metrics, Found]:
    """COCO mAP of a predictor, and the detections that it comes from; see ``detect``."""
    found = detect(predict, loader, truth, thresholds, description)
    return RANKS.main_only(lambda: coco_metrics(truth, found)), found


def coco_metrics(truth: GroundTruth, found: Found) -> Metrics:
    """MAP of detections by pycocotools."""
    from pycocotools.cocoeval import COCOeval

    images = len(truth.files)
    if not len(found.image):
        with_boxes = set(truth.arrays().labels[~truth.arrays().crowd].tolist())
        zeros = {name: 0.0 if number in with_boxes else -1.0 for number, name in enumerate(truth.names)}
        return Metrics(0.0, 0.0, images, zeros)
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    rows = np.column_stack((found.image + 1, low, high - low, found.scores, found.labels))
    with contextlib.redirect_stdout(io.StringIO()):  # its tables
        evaluation = COCOeval(truth.coco, truth.coco.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (10 IoU, 101 recall, K classes): all areas, 100 boxes
    per_class = [float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in np.moveaxis(precision, 2, 0)]
    return Metrics(float(evaluation.stats[0]), float(evaluation.stats[1]), images, dict(zip(truth.names, per_class)))


class Evaluator:
    """mAP of predictors over one data set.

    Args:
        dataset: its validation images are used.
        classes: number of classes of the model.
        loader: of the validation images, in the size of the network's input.
        thresholds: which boxes count as detections.
        class_names: the model's names of its classes, where it knows them.

    Attributes:
        truth: the annotations.

    Raises:
        UserError: the annotations are damaged, or do not fit the images or the model.
    """

    def __init__(
        self,
        dataset: Dataset,
        classes: int,
        loader: Loader,
        thresholds: Thresholds,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.truth = GroundTruth(dataset, classes, class_names)
        self._loader, self._thresholds = loader, thresholds

    def __call__(self, predict: Predictor | Detector, label: str, quiet: bool = False) -> Metrics:
        """The mAP, logged as well unless ``quiet``."""
        return self.measure(predict, label, quiet)[0]

    def measure(self, predict: Predictor | Detector, label: str, quiet: bool = False) -> tuple[Metrics, Found]:
        """The mAP and the detections."""
        metrics, found = evaluate(predict, self._loader, self.truth, self._thresholds, f"Evaluate {label}")
        if not quiet:
            LOG.info(
                "%s: mAP@0.5:0.95 %.4f, mAP@0.5 %.4f (%d images)", label, metrics.map, metrics.map50, metrics.images
            )
        return metrics, found
