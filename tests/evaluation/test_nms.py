"""Suppression against a few lines that compare every pair, as torchvision's operator does."""

from __future__ import annotations

import numpy as np
import pytest

from quantization.evaluation import nms as module
from quantization.evaluation.nms import nms


def every_pair(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy suppression, box by box, in the boxes' own type."""
    with np.errstate(all="ignore"):
        return compare_every_pair(boxes, scores, threshold)


def compare_every_pair(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for box in np.argsort(-scores, kind="stable").tolist():
        sides = [
            np.minimum(boxes[kept, axis + 2], boxes[box, axis + 2]) - np.maximum(boxes[kept, axis], boxes[box, axis])
            for axis in (0, 1)
        ]
        inter = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
        iou = inter / (area[kept] + area[box] - inter)
        if not (iou.astype(np.float64) > threshold).any():
            kept.append(box)
    return kept


def boxes_of(centres: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.concatenate((centres - sides / 2, centres + sides / 2), 1)


def layouts(seed: int, count: int = 300) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(18.0), np.arange(18.0)), -1).reshape(-1, 2)[:count]
    members = r.integers(0, 20, count)
    centres, sides = 300 * r.random((20, 2)), np.exp(3 * r.random((20, 2))) * 5
    return {
        "on one another": boxes_of(np.full((count, 2), 50.0), np.full((count, 2), 20.0)),
        "around one place": boxes_of(r.normal(50, 8, (count, 2)), 20 * np.exp(r.normal(0, 0.3, (count, 2)))),
        "side by side": boxes_of(4 * grid, np.full((count, 2), 4.0)),
        "half over one another": boxes_of(4 * grid, np.full((count, 2), 6.0)),
        "anywhere, any size": boxes_of(200 * r.random((count, 2)), np.exp(5 * r.random((count, 2))) + 2),
        "clusters": boxes_of(
            centres[members] + r.normal(0, 0.1, (count, 2)) * sides[members],
            sides[members] * np.exp(r.normal(0, 0.1, (count, 2))),
        ),
        "classes far apart": boxes_of(
            30 * r.random((count, 2)) + 7680.0 * r.integers(0, 80, (count, 1)), 5 + 20 * r.random((count, 2))
        ),
        "whole pixels": boxes_of(2 * r.integers(0, 20, (count, 2)), 2 * r.integers(1, 6, (count, 2)) + 0.0),
    }


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.25, 0.45, 0.5, 0.6, 0.65, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_what_comparing_every_pair_keeps(threshold: float, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 3000)  # several turns
    for seed in (0,):
        r = np.random.default_rng(seed)
        for name, boxes in layouts(seed).items():
            boxes = boxes.astype(dtype)
            for scores in (r.random(len(boxes)), np.round(r.random(len(boxes)), 1), np.linspace(1, 0, len(boxes))):
                expected = every_pair(boxes, scores.astype(np.float32), threshold)
                kept = nms(boxes, scores.astype(np.float32), threshold)
                assert kept.tolist() == expected, name
                assert kept.dtype == np.int64
                assert nms(boxes, scores.astype(np.float32), threshold, 17).tolist() == expected[:17], name


@pytest.mark.parametrize("copies", [1, 200])  # compared directly, and by ranges
def test_an_iou_equal_to_the_threshold_suppresses_nothing(copies: int) -> None:
    pair = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], dtype=np.float32)  # IoU exactly 0.5
    boxes = np.concatenate([pair + 100 * number for number in range(copies)])
    scores = np.tile(np.float32([0.9, 0.8]), copies)
    assert sorted(nms(boxes, scores, 0.5).tolist()) == list(range(2 * copies))
    assert sorted(nms(boxes, scores, 0.499).tolist()) == list(range(0, 2 * copies, 2))


@pytest.mark.parametrize("copies", [1, 200])
def test_equal_scores_go_in_the_order_given(copies: int) -> None:
    boxes = np.concatenate([np.float32([[0, 0, 10, 10], [0, 0, 10, 9]]) + 50 * number for number in range(copies)])
    assert nms(boxes, np.full(len(boxes), 0.5, np.float32), 0.6).tolist() == list(range(0, 2 * copies, 2))
    assert nms(boxes[::-1], np.full(len(boxes), 0.5, np.float32), 0.6).tolist() == list(range(0, 2 * copies, 2))


@pytest.mark.parametrize("count", [0, 50, 400])
def test_empty_and_infinite_boxes_stay(count: int) -> None:
    r = np.random.default_rng(0)
    usual = boxes_of(40 * r.random((count, 2)), 5 + 10 * r.random((count, 2)))
    odd = np.array(
        [
            [5, 5, 5, 9],
            [9, 9, 5, 5],
            [9, 5, 5, 9],
            [0, 0, np.inf, 10],
            [np.nan, 0, 5, 5],
            [-np.inf, -np.inf, np.inf, np.inf],
            [0, 0, 1e30, 1e30],
            [2, 2, 2 + 1e-30, 3],
        ]
    )
    boxes = np.concatenate((usual, odd)).astype(np.float32)
    scores = r.permutation(len(boxes)).astype(np.float32)
    kept = nms(boxes, scores, 0.4).tolist()
    assert kept == every_pair(boxes, scores, 0.4)
    assert set(range(count, len(boxes))) <= set(kept)


def test_work_grows_with_the_boxes_and_not_with_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def count(first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
        compared.append(second.size // 4)
        return original(first, second, threshold)

    original = module.overlaps
    monkeypatch.setattr(module, "overlaps", count)
    r = np.random.default_rng(0)
    for name, boxes in layouts(0).items():
        many = np.concatenate([boxes + np.float64([0, 7000, 0, 7000]) * number for number in range(12)])
        compared.clear()
        nms(many.astype(np.float32), r.random(len(many)).astype(np.float32), 0.6)
        assert sum(compared) < 40 * len(many) + 2 * module.PAIRS, name
