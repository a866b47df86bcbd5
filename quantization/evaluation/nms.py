"""Greedy non-maximum suppression in numpy, as torchvision.ops.nms decides it, fast for tens of thousands of boxes.

Two boxes can only exceed an IoU of t if the intervals that they cover on each axis do. So their widths differ by less
than a factor of 1/t, and the distance of their centres is less than (w1 + w2) / 2 * (1 - t) / (1 + t). Boxes are
sorted into levels of similar width, columns of a level's width, and by height in a column: the few that can be
suppressed by a box lie in a few contiguous ranges.
"""

from __future__ import annotations

import math

import numpy as np

FEW = 100  # up to this number, boxes are compared with each other directly
LOW = 0.2  # below this threshold boxes of too different sizes suppress each other for levels of width to help
SLACK = 0.999  # of the threshold, for rounding: the ranges may hold too many boxes, never too few
PAIRS = 100_000  # compared at once
GRID = 1 << 20  # steps of a range of coordinates: level, column and height together fit 63 bits


def nms(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, max_kept: int | None = None) -> np.ndarray:
    """Greedy non-maximum suppression, decision for decision as torchvision's CPU operator.

    Boxes are taken by score, equal scores in the order given. Each drops the later ones whose IoU with it is greater
    than the threshold. Boxes in float64 are compared in float64, all others in float32.

    Args:
        boxes: (N, 4), x1 y1 x2 y2. Boxes that are empty or not finite are kept.
        scores: (N,), none of them NaN.
        iou_threshold: 0 to 1.
        max_kept: maximum number of boxes to keep.

    Returns:
        Indices of the boxes that stay, best first, int64.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order].astype(np.float64 if boxes.dtype == np.float64 else np.float32)
    limit = len(boxes) if max_kept is None else max_kept
    if iou_threshold >= 1:
        return order[:limit].astype(np.int64)  # no IoU is greater
    with np.errstate(all="ignore"):  # what is not finite compares as false, as in the operator
        if len(boxes) <= FEW or iou_threshold < LOW:
            kept = _keep_by_comparing_all(boxes, iou_threshold, limit)
        else:
            kept = _keep_by_ranges(boxes, iou_threshold, limit)
    return order[kept].astype(np.int64)


def overlaps(first: np.ndarray, second: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Whether the IoU of boxes (..., 4) and (..., 4) exceeds the threshold, with torchvision's arithmetic."""
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1])
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    # compared in double as there: a float32 IoU that rounds to the threshold is above or below it
    return (inter / (_area(first) + _area(second) - inter)).astype(np.float64) > iou_threshold


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _keep_by_comparing_all(boxes: np.ndarray, iou_threshold: float, limit: int) -> np.ndarray:
    """Positions of the boxes that stay, of boxes sorted by score: each is compared with all that are left."""
    kept: list[int] = []
    left = np.arange(len(boxes))
    while left.size and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[~overlaps(boxes[best], boxes[left], iou_threshold)]
    return np.asarray(kept, dtype=np.int64)


def _keep_by_ranges(boxes: np.ndarray, iou_threshold: float, limit: int) -> np.ndarray:
    """Positions of the boxes that stay, of boxes sorted by score.

    The best boxes that are left go in turns of about ``PAIRS`` comparisons. What a turn suppresses is in no later
    turn's ranges, so many boxes in one place cost few turns.
    """
    index = _Index(boxes, iou_threshold * SLACK)
    alive = np.ones(len(boxes), dtype=bool)
    kept: list[np.ndarray] = []
    count, start, step = 0, 0, 4 * FEW
    while start < len(boxes) and count < limit:
        turn = start + np.flatnonzero(alive[start : start + step])
        low, high = index.ranges(turn)
        fitting = int(np.searchsorted(np.cumsum((high - low).sum(0)), PAIRS, side="right"))
        taken = min(max(1, fitting), len(turn))
        stop = int(turn[taken]) if taken < len(turn) else min(start + step, len(boxes))
        source, target = index.pairs(turn[:taken], low[:, :taken], high[:, :taken])
        suppressing = overlaps(boxes.take(source, axis=0), boxes.take(target, axis=0), iou_threshold)
        _suppress(alive, source[suppressing], target[suppressing])
        kept.append(start + np.flatnonzero(alive[start:stop]))
        count, start, step = count + len(kept[-1]), stop, 2 * max(stop - start, FEW)
        index.forget(alive, start)
    return np.concatenate(kept)[:limit]


def _suppress(alive: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    """Let each source that is alive, in ascending order, suppress its targets, all behind it."""
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    starts = np.flatnonzero(np.diff(source, prepend=-1))
    for box, start, stop in zip(source[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), len(source)]):
        if alive[box]:
            alive[target[start:stop]] = False


class _Index:
    """Finds the boxes whose IoU with a box may exceed a threshold.

    Args:
        boxes: (N, 4) sorted by score; those that are empty or not finite are left out, as they overlap nothing.
        iou_threshold: greater than 0, less than 1.
    """

    def __init__(self, boxes: np.ndarray, iou_threshold: float) -> None:
        self._ratio = 1 / iou_threshold  # of two boxes' widths or heights, at most
        self._reach = (1 - iou_threshold) / (1 + iou_threshold)  # between centres, relative to the mean side
        size = boxes[:, 2:] - boxes[:, :2]
        area = _area(boxes)
        self._usable = (size > 0).all(1) & (area > 0) & np.isfinite(area)
        usable = np.flatnonzero(self._usable)
        self._size = size.astype(np.float64)
        self._centre = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
        self._level = np.zeros(len(boxes), dtype=np.int64)
        self._level[usable] = np.floor(np.log(self._size[usable, 0]) / math.log(self._ratio))
        self._lowest = self._level[usable].min(initial=0)
        self._origin = self._centre[usable].min(0, initial=np.inf)
        self._step = np.maximum((self._centre[usable].max(0, initial=-np.inf) - self._origin) / (GRID - 2), 1e-30)
        column = self._column(self._centre[usable, 0], self._level[usable])
        key = self._key(self._level[usable], column, self._centre[usable, 1])
        order = np.argsort(key)
        self._boxes, self._keys = usable[order], key[order]

    def ranges(self, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends (R, T) in the index of the ranges that the boxes at positions ``turn`` (T,) may overlap."""
        low, high = [], []
        x, y = self._centre[turn].T
        width, height = self._size[turn].T
        far = (height + height * self._ratio) / 2 * self._reach
        for shift in (-1, 0, 1):
            level = self._level[turn] + shift
            near = (width + self._widest(level)) / 2 * self._reach
            first, last = self._column(x - near, level), self._column(x + near, level)
            for column in range(int((last - first).max(initial=0)) + 1):
                inside = self._usable[turn] & (first + column <= last)
                low.append(np.searchsorted(self._keys, self._key(level, first + column, y - far)))
                high.append(np.searchsorted(self._keys, self._key(level, first + column, y + far), side="right"))
                high[-1] = np.where(inside, high[-1], low[-1])
        return np.stack(low), np.stack(high)

    def pairs(self, turn: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of each box of ``turn`` (T,) and of each box behind it in its ranges (R, T): two times (P,)."""
        counts = (high - low).ravel()
        source = np.repeat(np.tile(turn, len(low)), counts)
        target = self._boxes[np.arange(counts.sum()) + np.repeat(low.ravel() - np.cumsum(counts) + counts, counts)]
        behind = target > source
        return source[behind], target[behind]

    def forget(self, alive: np.ndarray, start: int) -> None:
        """Take out the boxes before position ``start`` and those that are suppressed."""
        left = alive[self._boxes] & (self._boxes >= start)
        self._boxes, self._keys = self._boxes[left], self._keys[left]

    def _widest(self, level: np.ndarray) -> np.ndarray:
        return self._ratio ** (level + 1.0)

    def _column(self, x: np.ndarray, level: np.ndarray) -> np.ndarray:
        side = np.maximum(2 * self._reach * self._widest(level), self._step[0])
        return np.clip((x - self._origin[0]) / side, 0, GRID - 1).astype(np.int64)

    def _key(self, level: np.ndarray, column: np.ndarray, y: np.ndarray) -> np.ndarray:
        row = np.clip((y - self._origin[1]) / self._step[1], 0, GRID - 1).astype(np.int64)
        return ((level - self._lowest + 1) * GRID + column) * GRID + row
