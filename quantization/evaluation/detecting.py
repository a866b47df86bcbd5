"""Images through a network to detections: read, forwarded, suppressed, put back into pixels of the files. No torch."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, List, Protocol, Tuple, runtime_checkable

import numpy as np

from quantization.data.images import Batch, Loader
from quantization.distributed import RANKS, in_order
from quantization.errors import UserError
from quantization.evaluation.detections import Boxes, image_detections, to_image
from quantization.evaluation.ground_truth import GroundTruth
from quantization.progress_bar import progress_bar

# images of a batch with their detections (N, 7): image, x1, y1, x2, y2, score, class
Rows = List[Tuple[int, np.ndarray]]


class Predictor(Protocol):
    """A detection network, whatever runs it."""

    def __call__(self, images: np.ndarray, /) -> Boxes:
        """From images (B, 3, H, W), float32 in 0..1, to boxes (B, boxes, 5 + classes), or to final detections.

        No later call changes them.
        """


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

    def forward(self, images: np.ndarray) -> Boxes:
        """See ``Detector.forward``."""
        return self._predict(images.astype(np.float32) / 255)

    def detect(self, output: Boxes, thresholds: Thresholds) -> list[np.ndarray]:
        """See ``Detector.detect``."""
        limits = thresholds.confidence, thresholds.iou, thresholds.objectness_only
        return [image_detections(output, place, *limits) for place in range(len(output))]


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
            check_classes(output, len(truth.names))
            pending.append(pool.submit(_boxes_of, network, output, batch, truth, thresholds))
            if len(pending) > 1:  # no more than two outputs at a time
                found.append(pending.popleft().result())
        return found + [future.result() for future in pending]


def _boxes_of(network: Detector, output: Any, batch: Batch, truth: GroundTruth, thresholds: Thresholds) -> Rows:
    """The images of a batch with their detections, in pixels of the image files."""
    rows = []
    for place, boxes in enumerate(network.detect(output, thresholds)):
        image = truth.image_index(batch.files[place])
        boxes = to_image(boxes, batch.gains[place], batch.pads[place], batch.shapes[place])
        rows.append((image, np.insert(boxes, 0, image, axis=1)))
    return rows


def check_classes(output: Any, classes: int) -> None:
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
