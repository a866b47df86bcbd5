"""Differences between detections: noise is told from boxes that are wrong while their scores are right."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest

from quantization.errors import UserError
from quantization.evaluation.box_differences import BoxDifferences, box_differences, row_differences
from quantization.evaluation.comparison import comparison_images, found_differences, named_images

Change = Callable[[np.ndarray, np.random.Generator], None]


def detections_of_images(images: int = 6, each: int = 8) -> list[np.ndarray]:
    """Boxes side by side, so that none overlaps another, of four classes."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(images):
        low = np.stack((np.arange(each) * 80.0, generator.uniform(0, 500, each)), 1)
        size = generator.uniform(20, 70, (each, 2))
        scores, labels = generator.uniform(0.4, 0.95, each), generator.integers(0, 4, each)
        found.append(np.column_stack((low, low + size, scores, labels)))
    return found


def changed(found: list[np.ndarray], change: Change) -> BoxDifferences:
    generator = np.random.default_rng(1)
    others = [boxes.copy() for boxes in found]
    for boxes in others:
        change(boxes, generator)
    return box_differences(found, others)


def test_figures_of_pairs_made_by_hand() -> None:
    ours = np.array([[0, 0, 10, 10, 0.9, 1], [50, 50, 70, 90, 0.5, 2], [0, 0, 9, 9, 0.2, 1], [5, 60, 9, 70, 0.6, 0]])
    theirs = np.array(
        [[50, 50, 70, 100, 0.4, 2], [0, 0, 10, 10, 0.7, 1], [20, 0, 40, 10, 0.3, 3], [5, 60, 9, 70, 0.6, 1]]
    )
    found = box_differences([ours, ours[:0]], [theirs, theirs[:0]])
    # the third of ours is no confident one; the last ones are of different classes
    assert (found.images, found.count, found.lost, found.new) == (2, 3, 1, 2)
    np.testing.assert_allclose(sorted(found.pixels), [0, 10])
    np.testing.assert_allclose(sorted(found.ious), [0.8, 1])
    np.testing.assert_allclose(sorted(found.scores), [-0.2, -0.1])
    assert not found.is_enough and "too few for a verdict" in str(found)


def test_a_detection_near_the_threshold_is_neither_lost_nor_new() -> None:
    ours = np.array([[0, 0, 10, 10, 0.26, 1], [50, 50, 70, 90, 0.24, 2]])
    theirs = np.array([[0, 0, 10, 10, 0.24, 1], [50, 50, 70, 90, 0.26, 2]])
    found = box_differences([ours], [theirs])
    assert (found.count, found.lost, found.new) == (1, 0, 0)


@pytest.mark.parametrize("pixels", [0.0, 0.5, 1.5])
def test_noise(pixels: float) -> None:
    def shake(boxes: np.ndarray, generator: np.random.Generator) -> None:
        boxes[:, :4] += generator.normal(0, pixels, boxes[:, :4].shape)
        boxes[:, 4] += generator.normal(0, 0.03, len(boxes))

    found = changed(detections_of_images(), shake)
    assert (found.count, found.lost, found.new) == (48, 0, 0)
    assert not found.is_suspicious and str(found).endswith(": no more than quantization noise")


CORRUPTIONS: dict[str, Change] = {
    "boxes of others": lambda boxes, generator: boxes.__setitem__((..., slice(0, 4)), boxes[::-1, :4].copy()),
    "a third of the boxes anywhere": lambda boxes, generator: boxes.__setitem__(
        (slice(0, None, 3), slice(0, 4)), generator.uniform(0, 600, (len(boxes[::3]), 4))
    ),
    "wider by a third": lambda boxes, generator: boxes.__setitem__(
        (..., 2), boxes[:, 2] + (boxes[:, 2] - boxes[:, 0]) / 3
    ),
    "twice as high, every third": lambda boxes, generator: boxes.__setitem__(
        (slice(0, None, 3), 3), 2 * boxes[::3, 3] - boxes[::3, 1] + 1
    ),
    "no numbers": lambda boxes, generator: boxes.__setitem__((..., slice(0, 4)), np.nan),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_boxes_with_right_scores_are_suspicious(name: str) -> None:
    found = changed(detections_of_images(), CORRUPTIONS[name])
    assert found.is_suspicious and "SUSPICIOUS" in str(found)


def test_detections_out_of_nothing_are_suspicious() -> None:
    found = detections_of_images()
    assert box_differences([boxes[:0] for boxes in found], found).is_suspicious
    assert box_differences(found, [boxes[:0] for boxes in found]).is_suspicious


def test_rows_are_compared_one_by_one_even_without_detections() -> None:
    rows = np.random.default_rng(0).random((2, 200, 8), dtype=np.float32)
    rows[..., :4] = rows[..., :4] * 50 + 10
    rows[..., 4] *= 0.01
    best = np.sort(rows[..., 4] * rows[..., 5:].max(2), 1)[:, -50:]
    others = rows.copy()
    others[..., 4] *= 1.5
    found = row_differences(rows, others)
    assert (found.count, found.lost, found.new, found.is_suspicious) == (100, 0, 0, False)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(best.ravel() / 2), rtol=1e-5)
    others[..., :4] = others[:, ::-1, :4]
    assert row_differences(rows, others).is_suspicious
    assert not found_differences(rows, others).is_enough


def test_images_to_compare_on(tmp_path: Path) -> None:
    drawn = comparison_images(None, (32, 64), 3)
    assert drawn.shape == (3, 3, 32, 64) and drawn.dtype == np.float32 and 0 <= drawn.min() < drawn.max() <= 1
    assert np.abs(np.diff(drawn, axis=3)).max() < 0.2  # smooth
    for number in range(10):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 40, 3), 25 * number, np.uint8))
    found = comparison_images(named_images(str(tmp_path)), (20, 40), 4)
    np.testing.assert_allclose(found.mean((1, 2, 3)) * 255, [0, 75, 150, 225], atol=1e-3)
    with pytest.raises(UserError):
        named_images(str(tmp_path / "none"))
