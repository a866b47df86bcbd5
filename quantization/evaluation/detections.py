"""From a YOLO output tensor to boxes, in numpy: no torch, so that it also serves engines on a Jetson."""

from __future__ import annotations

from typing import List, Sequence, Union

import numpy as np

from quantization.evaluation.nms import nms

MAX_CANDIDATES = 30_000  # as both upstreams: the best boxes by score go into suppression
MAX_DETECTIONS = 300  # likewise: that stay of an image
MAX_BOX = 7680.0  # offset between classes, larger than any image side

# of a batch: rows (B, N, 5 + C) for non-maximum suppression, or each image's final detections (M, 6), best first
Boxes = Union[np.ndarray, List[np.ndarray]]


def joined(parts: Sequence[Boxes]) -> Boxes:
    """The boxes of several batches as those of one."""
    rows = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(rows) if rows else [boxes for part in parts for boxes in part]


def detections(
    output: np.ndarray,
    confidence: float,
    iou_threshold: float,
    max_detections: int = MAX_DETECTIONS,
    objectness_only: bool = False,
) -> np.ndarray:
    """Boxes of one image, as the upstreams' ``non_max_suppression(multi_label=True)`` gives them.

    Args:
        output: (N, 5 + C): centre x, centre y, width, height in pixels, objectness, class probabilities.
        confidence: minimum of the objectness, and of objectness * class probability.
        iou_threshold: of the suppression within a class.
        max_detections: best boxes to keep.
        objectness_only: with one class, take the objectness as the score (yolov7 does).

    Returns:
        (M, 6) float64: x1, y1, x2, y2, score, class; best first.
    """
    output = output[output[:, 4] > confidence].astype(np.float64)
    classes = output.shape[1] - 5
    scores = output[:, 4:5] if classes == 1 and objectness_only else output[:, 5:] * output[:, 4:5]  # (N, C)
    row, label = np.nonzero(scores > confidence)
    score = scores[row, label]
    if score.size > MAX_CANDIDATES:
        best = np.argsort(-score, kind="stable")[:MAX_CANDIDATES]
        row, label, score = row[best], label[best], score[best]
    half = output[row, 2:4] / 2
    boxes = np.concatenate((output[row, :2] - half, output[row, :2] + half), 1)  # (K, 4)
    kept = nms(boxes + label[:, None] * MAX_BOX, score, iou_threshold, max_detections)
    return np.concatenate((boxes[kept], score[kept, None], label[kept, None]), 1)


def image_detections(
    boxes: Boxes, place: int, confidence: float, iou_threshold: float, objectness_only: bool = False
) -> np.ndarray:
    """The detections of one image of a batch; final ones are not suppressed again.

    Args:
        boxes: of the batch.
        place: of the image in it.
        confidence: minimum score, see ``detections``.
        iou_threshold: see ``detections``; final ones take no notice of it.
        objectness_only: likewise.

    Returns:
        (M, 6) float64: x1, y1, x2, y2 in pixels of the network's input, score, class; best first.
    """
    if isinstance(boxes, list):
        return boxes[place][boxes[place][:, 4] > confidence]
    return detections(boxes[place], confidence, iou_threshold, objectness_only=objectness_only)


def to_image(boxes: np.ndarray, gain: float, pad: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Undo letterboxing.

    Args:
        boxes: (M, 4+), x1 y1 x2 y2 first, in pixels of the network's input.
        gain: network pixels per image pixel.
        pad: border left and above, in network pixels.
        shape: height and width of the image.

    Returns:
        A copy in pixels of the image, clipped to it.
    """
    boxes = boxes.copy()
    boxes[:, :4] = (boxes[:, :4] - np.tile(pad, 2)) / gain
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, shape[1])
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, shape[0])
    return boxes
