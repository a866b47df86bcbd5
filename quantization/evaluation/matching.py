"""Detections matched to boxes by pycocotools, some images at a time. numpy and pycocotools alone.

Images are independent: matched in parts and put together again, they give pycocotools' own results, and only one part at a
time becomes the dictionaries that pycocotools works on, 600 bytes a box.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Iterable, Sequence

import numpy as np


@dataclass(frozen=True)
class ImagePart:
    """Images with what is annotated and what was found in them: G annotated boxes, D detections.

    Attributes:
        first: number of the first image.
        images: how many there are.
        classes: number of classes.
        true_image: (G,) int64, number of the image.
        true_boxes: (G, 4) float64, x1, y1, x2, y2.
        true_labels: (G,) int64, class.
        crowd: (G,) bool, boxes in which detections count neither way.
        image: (D,) int64, number of the image.
        boxes: (D, 4) float64, x1, y1, x2, y2; of each image in the order that equal scores keep.
        scores: (D,) float64.
        labels: (D,) int64, class.
    """

    first: int
    images: int
    classes: int
    true_image: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """What pycocotools says of pairs of image and class that have annotated boxes or detections, by class, then by image.

    P pairs, D detections, G annotated boxes, T thresholds of IoU; detections and boxes lie pair after pair.

    Attributes:
        image: (P,) int64, number of the image.
        label: (P,) int64, class.
        detections: (P,) int64, how many each pair has; pycocotools keeps the best 100.
        boxes: (P,) int64, likewise.
        scores: (D,) float64, of each pair the best first.
        matched: (T, D) bool, matched to a box or a crowd.
        ignored: (T, D) bool, matched to a crowd: counts neither way.
        box_ignored: (G,) bool, crowds.
    """

    image: np.ndarray
    label: np.ndarray
    detections: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    box_ignored: np.ndarray


def match_part(part: ImagePart) -> Pairs:
    """Match the detections of some images to their boxes by pycocotools."""
    from pycocotools.cocoeval import COCOeval

    none = np.zeros(len(part.image))
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        truth = _coco(part, part.true_image, part.true_boxes, part.true_labels, crowd=part.crowd, scores=None)
        found = _coco(part, part.image, part.boxes, part.labels, crowd=none, scores=part.scores)
        evaluation = COCOeval(truth, found, "bbox")
        _restrict(evaluation.params)
        evaluation.evaluate()
    return pairs_of(evaluation)


def _restrict(params: Any) -> None:
    """Leave out figures by size and for few detections: they are not ours to give, and cost as much as the others each."""
    params.areaRng, params.areaRngLbl, params.maxDets = params.areaRng[:1], ["all"], params.maxDets[-1:]


def _coco(part: ImagePart, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, **more: Any) -> Any:
    """Boxes of a part as an object of pycocotools: image ids from 1 on, class numbers as category ids."""
    from pycocotools.coco import COCO

    sides = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)
    columns: dict[str, list[Any]] = {
        "id": list(range(1, len(image) + 1)),  # it takes 0 for "no match"
        "image_id": (image + 1).tolist(),
        "category_id": labels.tolist(),
        "bbox": sides.tolist(),  # Python's numbers, which are faster than numpy's one by one
        "area": (sides[:, 2] * sides[:, 3]).tolist(),
        "iscrowd": more["crowd"].astype(int).tolist(),
    }
    if more["scores"] is not None:
        columns["score"] = more["scores"].tolist()
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": number + 1} for number in range(part.first, part.first + part.images)],
        "categories": [{"id": number} for number in range(part.classes)],
        "annotations": [dict(zip(columns, values)) for values in zip(*columns.values())],
    }
    coco.createIndex()
    return coco


def pairs_of(evaluation: Any) -> Pairs:
    """What a COCOeval found.

    Args:
        evaluation: its ``evaluate`` has run, over boxes of all areas alone, with image ids from 1 on and class numbers as
            category ids.
    """
    entries = [entry for entry in evaluation.evalImgs if entry is not None]
    flags = [np.zeros((len(evaluation.params.iouThrs), 0), bool)]
    return Pairs(
        np.array([entry["image_id"] - 1 for entry in entries], np.int64),
        np.array([entry["category_id"] for entry in entries], np.int64),
        np.array([len(entry["dtScores"]) for entry in entries], np.int64),
        np.array([len(entry["gtIgnore"]) for entry in entries], np.int64),
        np.array([score for entry in entries for score in entry["dtScores"]], np.float64),
        np.concatenate(flags + [entry["dtMatches"] != 0 for entry in entries], 1),
        np.concatenate(flags + [entry["dtIgnore"].astype(bool) for entry in entries], 1),
        np.concatenate([np.zeros(0, bool)] + [entry["gtIgnore"].astype(bool) for entry in entries]),
    )


def joined_pairs(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of all images from those of parts in the order of their images."""
    label = np.concatenate([part.label for part in parts])
    detections, boxes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("detections", "boxes"))
    # stable: of each class, the images keep their order
    order, found, true = (
        np.argsort(labels, kind="stable") for labels in (label, np.repeat(label, detections), np.repeat(label, boxes))
    )
    return Pairs(
        np.concatenate([part.image for part in parts])[order],
        label[order],
        detections[order],
        boxes[order],
        np.concatenate([part.scores for part in parts])[found],
        np.concatenate([part.matched for part in parts], 1)[:, found],
        np.concatenate([part.ignored for part in parts], 1)[:, found],
        np.concatenate([part.box_ignored for part in parts])[true],
    )


def precisions(pairs: Pairs, images: int, classes: int) -> np.ndarray:
    """Precision by pycocotools at (10 IoU thresholds, 101 recalls, classes), all areas, 100 boxes; -1 without a box."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(iouType="bbox")
    _restrict(evaluation.params)
    evaluation.params.imgIds, evaluation.params.catIds = list(range(images)), list(range(classes))
    evaluation.evalImgs = [None] * (images * classes)
    for place, entry in zip((pairs.label * images + pairs.image).tolist(), _entries(pairs)):
        evaluation.evalImgs[place] = entry
    evaluation._paramsEval = evaluation.params  # noqa: SLF001  its ``evaluate`` leaves them there
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision: np.ndarray = evaluation.eval["precision"][:, :, :, 0, -1]
    return precision


def _entries(pairs: Pairs) -> Iterable[dict[str, np.ndarray]]:
    """What pycocotools' ``accumulate`` reads of each pair."""
    found, true = (np.cumsum(counts) for counts in (pairs.detections, pairs.boxes))
    limits = (found - pairs.detections, found, true - pairs.boxes, true)
    for start, end, first, last in zip(*(limit.tolist() for limit in limits)):
        yield {
            "dtScores": pairs.scores[start:end],
            "dtMatches": pairs.matched[:, start:end],
            "dtIgnore": pairs.ignored[:, start:end],
            "gtIgnore": pairs.box_ignored[first:last],
        }
