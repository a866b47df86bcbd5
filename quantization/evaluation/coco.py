"""COCO mAP by pycocotools over any predictor: a torch module, an ONNX Runtime session, a TensorRT engine. No torch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
from tqdm import tqdm

from quantization.data.images import Dataset, Loader, image_shape
from quantization.data.labels import label_file, read_labels
from quantization.errors import UserError
from quantization.evaluation.detections import detections, to_image

LOG = logging.getLogger("quantization")
Predictor = Callable[[np.ndarray], np.ndarray]  # (B, 3, H, W) float32 in 0..1 to (B, boxes, 5 + classes)


@dataclass
class Metrics:
    """What pycocotools measured, shares of 1.

    Attributes:
        map: mAP@0.5:0.95.
        map50: mAP@0.5.
        images: number of images.
        per_class: class name to AP@0.5:0.95; -1 where the class does not occur.
    """

    map: float
    map50: float
    images: int
    per_class: dict[str, float]


class GroundTruth:
    """The annotations of the validation images, as a pycocotools COCO object.

    Args:
        dataset: its annotation JSON is read, or its YOLO label files where it has none.
        classes: number of classes of the model.

    Raises:
        UserError: the annotations are damaged, do not fit the images, or have another number of classes.
    """

    def __init__(self, dataset: Dataset, classes: int) -> None:
        self.dataset = dataset
        if dataset.names and len(dataset.names) != classes:
            raise UserError(
                f"{dataset.source} has {len(dataset.names)} classes, the model has {classes}: "
                "use the data that the model was trained on"
            )
        content = self._read_json(dataset.annotations) if dataset.annotations else self._from_labels(dataset, classes)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        if len(categories) != classes:
            raise UserError(
                f"{dataset.annotations or dataset.source} has {len(categories)} classes, the model has "
                f"{classes}: use the data that the model was trained on"
            )
        self.category_ids = [category["id"] for category in categories]
        self.names = [str(category.get("name", category["id"])) for category in categories]
        stems = {Path(image["file_name"]).stem: image["id"] for image in content["images"]}
        self.image_ids: dict[str, int] = {}
        for file in dataset.val:
            if Path(file).stem not in stems:
                raise UserError(
                    f"{dataset.annotations} does not list {Path(file).name}: annotations and images of "
                    f"{dataset.source} do not belong together"
                )
            self.image_ids[file] = stems[Path(file).stem]
        self.coco = self._index(content)

    @staticmethod
    def _read_json(file: Path) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is no JSON file: {error}") from error
        missing = [
            key
            for key in ("images", "annotations", "categories")
            if not isinstance(content, dict) or not isinstance(content.get(key), list)
        ]
        if missing:
            raise UserError(f"{file} lacks {', '.join(missing)}: it is no COCO annotation file")
        return content

    @staticmethod
    def _from_labels(dataset: Dataset, classes: int) -> dict[str, Any]:
        images, annotations = [], []
        for number, file in enumerate(dataset.val):
            height, width = image_shape(file)
            images.append({"id": number, "file_name": Path(file).name, "height": height, "width": width})
            for label, x, y, w, h in read_labels(label_file(file), classes):
                box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(label),
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        names = dataset.names or [str(number) for number in range(classes)]
        return {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        }

    @staticmethod
    def _index(content: dict[str, Any]) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco.createIndex()
        return coco


def evaluate(
    predict: Predictor,
    loader: Loader,
    truth: GroundTruth,
    confidence: float = 0.001,
    iou_threshold: float = 0.65,
    objectness_only: bool = False,
    description: str = "Evaluate",
) -> Metrics:
    """COCO mAP of a predictor.

    Args:
        predict: the network.
        loader: the validation images.
        truth: their annotations.
        confidence: least score of a detection.
        iou_threshold: of the non-maximum suppression.
        objectness_only: see ``postprocess.detections``.
        description: for the progress bar.

    Raises:
        UserError: the output's shape does not fit the number of classes.
    """
    results: list[list[float]] = []  # rows of image id, x, y, width, height, score, category id
    files: list[str] = []
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        output = predict(batch.images.astype(np.float32) / 255)
        if output.ndim != 3 or output.shape[2] != 5 + len(truth.names):
            raise UserError(
                f"the network's output has the shape {tuple(output.shape)}; (B, boxes, "
                f"{5 + len(truth.names)}) is expected for {len(truth.names)} classes"
            )
        for index, file in enumerate(batch.files):
            found = detections(output[index], confidence, iou_threshold, objectness_only=objectness_only)
            found = to_image(found, batch.gains[index], batch.pads[index], batch.shapes[index])
            files.append(file)
            for x1, y1, x2, y2, score, label in found.tolist():
                results.append([truth.image_ids[file], x1, y1, x2 - x1, y2 - y1, score, truth.category_ids[int(label)]])
    return coco_metrics(truth, results, [truth.image_ids[file] for file in files])


def coco_metrics(truth: GroundTruth, results: Sequence[Sequence[float]], image_ids: list[int]) -> Metrics:
    """MAP of detections by pycocotools.

    Args:
        truth: the annotations.
        results: rows of image id, x, y, width, height (pixels), score, category id.
        image_ids: the images that were looked at.
    """
    from pycocotools.cocoeval import COCOeval

    if not results:
        return Metrics(0.0, 0.0, len(image_ids), {name: 0.0 for name in truth.names})
    with contextlib.redirect_stdout(io.StringIO()):  # its tables
        found = truth.coco.loadRes(np.array(results, dtype=np.float64))
        evaluation = COCOeval(truth.coco, found, "bbox")
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (10 IoU, 101 recall, K classes): all areas, 100 boxes
    per_class = [float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in np.moveaxis(precision, 2, 0)]
    return Metrics(
        float(evaluation.stats[0]), float(evaluation.stats[1]), len(image_ids), dict(zip(truth.names, per_class))
    )


class Evaluator:
    """mAP of predictors over one data set.

    Args:
        dataset: its validation images are used.
        classes: of the model.
        size: H and W of the network's input.
        batch_size: images a batch.
        workers: threads that read images.
        rect_stride: evaluate in rectangles of multiples of this stride, as upstream does; None: in ``size``.
        confidence, iou_threshold, objectness_only: see ``evaluate``.

    Raises:
        UserError: a threshold is no share, or the annotations do not fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        classes: int,
        size: tuple[int, int],
        batch_size: int,
        workers: int,
        rect_stride: int | None,
        confidence: float,
        iou_threshold: float,
        objectness_only: bool,
    ) -> None:
        for flag, value in (("--confidence", confidence), ("--nmsthres", iou_threshold)):
            if not 0 <= value <= 1:
                raise UserError(f"{flag} {value} is no share: give 0 to 1")
        self.truth = GroundTruth(dataset, classes)
        self.loader = Loader(dataset.val, size, batch_size, workers, rect_stride)
        self._thresholds = (confidence, iou_threshold, objectness_only)

    def __call__(self, predict: Predictor, label: str, quiet: bool = False) -> Metrics:
        metrics = evaluate(predict, self.loader, self.truth, *self._thresholds, description=f"Evaluate {label}")
        if not quiet:
            LOG.info(
                "%s: mAP@0.5:0.95 %.4f, mAP@0.5 %.4f (%d images)", label, metrics.map, metrics.map50, metrics.images
            )
        return metrics
