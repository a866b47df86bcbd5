"""A network with what is needed to show its detections: of an ONNX or an engine made here, of a .pt by the caller."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from quantization.data.images import letterbox
from quantization.errors import UserError
from quantization.evaluation.categories import first_moved, is_single_class, same_name
from quantization.evaluation.detecting import Predictor, check_classes
from quantization.evaluation.detections import image_detections, to_image
from quantization.evaluation.network import Network
from quantization.evaluation.opened import open_network
from quantization.viewing.options import PredictCommand

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageDetector:
    """A network to look at.

    Attributes:
        file: where it comes from.
        predict: runs it.
        network: its classes, input size and way of scoring.
    """

    file: str
    predict: Predictor
    network: Network

    def find(self, image: np.ndarray, confidence: float, iou: float) -> np.ndarray:
        """The boxes of one image.

        Args:
            image: (H, W, 3) uint8, BGR.
            confidence: minimum score.
            iou: threshold of non-maximum suppression.

        Returns:
            (N, 6) float64: x1, y1, x2, y2 in pixels of the image, score, class; best first.

        Raises:
            UserError: the output does not fit the network's classes.
        """
        boxed, gain, pad = letterbox(image, self.network.size)
        pixels = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255
        output = self.predict(pixels)
        check_classes(output, self.network.classes)
        boxes = image_detections(output, 0, confidence, iou, objectness_only=self.network.objectness_only)
        return to_image(boxes, gain, pad, image.shape[:2])


def open_runtime(options: PredictCommand, file: str, classes: int | None) -> ImageDetector:
    """An ONNX in ONNX Runtime, or a TensorRT engine.

    Args:
        options: how its output is read, and the image side where the graph leaves it open.
        file: .onnx, or a plan built on this GPU.
        classes: their number, where the file does not tell it.

    Raises:
        UserError: it cannot be loaded, or is no detection network.
    """
    opened = open_network(file, options.output_format, options.imgsz)
    count = opened.classes or classes
    if count is None:
        raise UserError(f"{file} does not tell its number of classes: give --data data.yaml with their names")
    objectness = options.objectness or (opened.origin is not None and opened.origin.objectness_only)
    upstream = "yolov7" if objectness else "yolov5"
    network = Network(upstream, count, opened.names, opened.size, options.iou, objectness)
    return ImageDetector(file, opened.predict, network)


def shared_names(detectors: Sequence[ImageDetector], given: Sequence[str], source: str) -> list[str]:
    """What the classes of all models are called: as a data.yaml says, else as a model does, else class0, class1 ...

    Models of ``--single-cls`` have one class, whatever the data.yaml has.

    Args:
        detectors: the models.
        given: names of the data.yaml; may be empty.
        source: the data.yaml, for messages.

    Raises:
        UserError: the models have other classes, or a data.yaml has another number or order of them.
    """
    merged = all(is_single_class(detector.network.classes, detector.network.names) for detector in detectors)
    data = [(source, list(given))] if given and not (merged and len(given) > 1) else []
    models = [(detector.file, list(detector.network.names)) for detector in detectors if detector.network.names]
    known = data + models
    counts = [(file, len(names)) for file, names in known]
    counts += [(detector.file, detector.network.classes) for detector in detectors]
    for file, count in counts[1:]:
        if count != counts[0][1]:
            raise UserError(
                f"{counts[0][0]} has {counts[0][1]} classes, {file} has {count}: "
                "compare models of the same data, and give that data's names"
            )
    for second, others in models[1:]:
        file, names = models[0]
        number = _first_other(names, others)
        if number is not None:
            raise UserError(f"{_difference(number, names, file, others, second)}: compare models of the same data")
    for file, names in models if data else []:
        _check_order(file, names, given, source)
    return known[0][1] if known else [f"class{number}" for number in range(counts[0][1])]


def _check_order(file: str, names: Sequence[str], given: Sequence[str], source: str) -> None:
    """A UserError if a data.yaml has the model's names in another order, a warning if it has others: translations, say."""
    moved, other = first_moved(given, names), _first_other(given, names)
    if moved is not None:
        raise UserError(f"{_difference(moved, given, source, names, file)}: give both the same order")
    if other is not None:
        LOG.warning("WARNING: %s: the names of %s are shown", _difference(other, given, source, names, file), source)


def _difference(number: int, names: Sequence[str], file: str, others: Sequence[str], second: str) -> str:
    return f"class {number} is {names[number]} in {file} and {others[number]} in {second}"


def _first_other(names: Sequence[str], others: Sequence[str]) -> int | None:
    """The first class that two models call differently, numbers for names aside."""
    for number, pair in enumerate(zip(names, others)):
        if same_name(pair[0]) != same_name(pair[1]) and not any(name.isdigit() for name in pair):
            return number
    return None
