"""Matching against a brute-force search over all pairings, costs against their formula, label errors by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantization.evaluation.box_differences import matching_boxes
from quantization.viewing.differences import (
    MOVED,
    SAME,
    disagreement,
    label_errors,
    match_models,
)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes with whole corners, by counting pixels."""
    grids = []
    for x1, y1, x2, y2 in (one[:4].astype(int), other[:4].astype(int)):
        grid = np.zeros((64, 64), bool)
        grid[y1:y2, x1:x2] = True
        grids.append(grid)
    union = (grids[0] | grids[1]).sum()
    return float((grids[0] & grids[1]).sum() / union) if union else 0.0


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    low = generator.integers(0, 30, (count, 2))
    return np.column_stack(
        (low, low + generator.integers(1, 30, (count, 2)), generator.random(count), generator.integers(0, 2, count))
    ).astype(np.float64)


def box(x: float, score: float = 0.9, label: int = 0, side: float = 20) -> list[float]:
    return [x, 10, x + side, 10 + side, score, label]


def kinds(first: list[list[float]], second: list[list[float]], confidence: float = 0.25) -> list[str]:
    arrays = [np.array(rows).reshape(-1, 6) for rows in (first, second)]
    return [match.kind for match in match_models(arrays[0], arrays[1], confidence)]


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_greedy_by_overlap(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = random_boxes(generator, 15), random_boxes(generator, 15)
    second[:10] = first[:10] + np.array([1, 0, 1, 0, 0, 0])  # so that some belong together
    left = {(i, j) for i, j in itertools.product(range(15), range(15)) if first[i, 5] == second[j, 5]}
    expected = []
    while left:
        i, j = max(sorted(left), key=lambda pair: iou(first[pair[0]], second[pair[1]]))
        if iou(first[i], second[j]) < SAME:
            break
        expected.append((i, j))
        left = {(k, m) for k, m in left if k != i and m != j}
    assert len(expected) > 3
    assert [pair[:2] for pair in matching_boxes(first, second, SAME)] == expected


def test_kinds() -> None:
    assert kinds([box(0)], [box(0)]) == ["kept"]
    shift = 20 * (1 - MOVED)  # IoU (20 - s) / (20 + s), below MOVED
    assert kinds([box(0)], [box(shift)]) == ["moved"]
    assert kinds([box(0)], []) == ["lost"]
    assert kinds([], [box(0)]) == ["new"]
    assert kinds([box(0)], [box(0, label=1)]) == ["lost", "new"]  # another class is another object
    assert kinds([box(0)], [box(30)]) == ["lost", "new"]
    assert kinds([box(0, 0.2)], [box(0, 0.2)]) == []  # below the confidence in both


def test_a_box_that_fell_below_the_threshold_costs_what_it_fell() -> None:
    (match,) = match_models(np.array([box(0, 0.26)]), np.array([box(0, 0.24)]), 0.25)
    assert match.kind == "lost" and match.second is not None
    assert match.cost == pytest.approx(0.02)
    (gone,) = match_models(np.array([box(0, 0.9)]), np.zeros((0, 6)), 0.25)
    assert gone.second is None and gone.cost == pytest.approx(0.9)


def test_disagreement_leaves_out_what_is_kept_and_the_costliest_comes_first() -> None:
    first = np.array([box(0, 0.9), box(40, 0.5), box(80, 0.7)])
    second = np.array([box(0, 0.6)])
    matches = match_models(first, second, 0.25)
    assert [match.kind for match in matches] == ["lost", "lost", "kept"]
    assert [match.cost for match in matches] == pytest.approx([0.7, 0.5, 0.3])
    assert disagreement(matches) == pytest.approx(1.2)


def test_labels_say_what_is_missed_and_what_is_false() -> None:
    found = np.array([box(0), box(0.5, 0.8), box(40, label=1), box(100)])
    truth = np.array([[0, 10, 20, 30, 0], [40, 10, 60, 30, 0], [90, 0, 150, 60, 0]], np.float64)
    crowd = np.array([False, False, True])
    missed, false = label_errors(found, truth, crowd)
    # the second box doubles the first, the third has the wrong class, the fourth lies in a crowd
    assert missed == [1] and false == [1, 2]
    assert label_errors(found, truth, np.zeros(3, bool)) == ([1, 2], [1, 2, 3])
    assert label_errors(np.zeros((0, 6)), truth, crowd) == ([0, 1], [])
