"""From a network's output to detections where it lies, for a whole batch at once: decision for decision as in numpy.

Every operation is one of ``evaluation.detections`` and ``evaluation.nms`` in the same type, float64, so that the same output
gives the same detections to the last bit. Greedy suppression as a computation without a loop over boxes: with the boxes
sorted by score,

    kept = free & ~any(earlier box overlaps & kept)

has one solution, and taking the right side for ``kept`` again and again reaches it, since a box is right as soon as the
earlier ones that overlap it are. It is done in blocks, because the best few hundred boxes decide.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quantization.evaluation.detecting import Thresholds
from quantization.evaluation.detections import MAX_BOX, MAX_CANDIDATES, MAX_DETECTIONS

BLOCK = 256  # boxes of each image; 32 images of them have 17 MB of comparisons in float64


@torch.no_grad()
def device_detections(output: Tensor, thresholds: Thresholds, max_detections: int = MAX_DETECTIONS) -> list[np.ndarray]:
    """The detections of a batch, those of ``evaluation.detections.detections`` for each image.

    Args:
        output: (B, N, 5 + C): centre x, centre y, width, height in pixels, objectness, class probabilities; float32.
        thresholds: which boxes count.
        max_detections: best boxes to keep of each image.

    Returns:
        For each image (M, 6) float64: x1, y1, x2, y2, score, class; best first.
    """
    rows = [_candidates(image, thresholds) for image in output]
    if not rows:
        return []
    table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, K, 6)
    lengths = torch.tensor([len(part) for part in rows], device=table.device)
    real = torch.arange(table.shape[1], device=table.device) < lengths[:, None]
    kept = suppress(table[..., :4] + table[..., 5:] * MAX_BOX, real, thresholds.iou, max_detections)
    found = table[kept].cpu().numpy()
    return np.split(found, kept.sum(1).cumsum(0).tolist()[:-1])


def _candidates(output: Tensor, thresholds: Thresholds) -> Tensor:
    """The boxes of one image that go into suppression, best first: (N, 5 + C) to (K, 6)."""
    output = output[output[:, 4] > thresholds.confidence].double()
    only = output.shape[1] == 6 and thresholds.objectness_only
    scores = output[:, 4:5] if only else output[:, 5:] * output[:, 4:5]  # (N, C)
    row, label = (scores > thresholds.confidence).nonzero(as_tuple=True)
    score, order = scores[row, label].sort(descending=True, stable=True)
    score, order = score[:MAX_CANDIDATES], order[:MAX_CANDIDATES]
    row, label = row[order], label[order]
    half = output[row, 2:4] / 2
    centre = output[row, :2]
    return torch.cat((centre - half, centre + half, score[:, None], label[:, None].double()), 1)


def suppress(boxes: Tensor, real: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Greedy non-maximum suppression of a batch.

    Args:
        boxes: (B, K, 4) x1, y1, x2, y2, best first.
        real: (B, K) bool, False for what only fills up an image with fewer boxes.
        iou_threshold: above it, a box suppresses a later one.
        limit: number of boxes of each image to keep.

    Returns:
        (B, K) bool: the boxes that stay.
    """
    parts = [real[:, :0]]
    best, counts = boxes[:, :0], real[:, :0]  # boxes kept so far, (B, M, 4), and which of them are some
    for start in range(0, boxes.shape[1], BLOCK):
        block = boxes[:, start : start + BLOCK]
        beaten = _overlap(best[:, :, None], block[:, None], iou_threshold) & counts[:, :, None]  # (B, M, b)
        wanted = counts.sum(1, keepdim=True) < limit  # images that are full take no more: it would cost memory for all
        free = real[:, start : start + BLOCK] & ~beaten.any(1) & wanted
        earlier = _overlap(block[:, :, None], block[:, None], iou_threshold).triu(1)  # (B, b, b)
        kept, before = free & ~(earlier & free[:, :, None]).any(1), free
        while not torch.equal(kept, before):
            kept, before = free & ~(earlier & kept[:, :, None]).any(1), kept
        parts.append(kept)
        number = kept.sum(1)
        front = (~kept).byte().sort(dim=1, stable=True)[1][:, : int(number.max())]  # kept ones first
        best = torch.cat((best, block.gather(1, front[..., None].expand(-1, -1, 4))), 1)
        counts = torch.cat((counts, kept.gather(1, front)), 1)
        if bool((counts.sum(1) >= limit).all()):
            break
    whole = torch.cat(parts, 1)
    whole = torch.nn.functional.pad(whole, (0, boxes.shape[1] - whole.shape[1]))
    return whole & (whole.cumsum(1) <= limit)


def _overlap(first: Tensor, second: Tensor, iou_threshold: float) -> Tensor:
    """Whether the IoU of boxes (..., 4) and (..., 4) exceeds the threshold, see ``evaluation.nms.overlaps``."""
    width = torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])
    height = torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])
    inter = width.clamp(min=0) * height.clamp(min=0)
    return inter / (_area(first) + _area(second) - inter) > iou_threshold


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
