"""Means over seeds and sets and their intervals against simulations, and what an interval covers against a count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from real_statistics import coverage, mean_of_seeds, mean_of_sets


def part(points: float | None, width: float | None) -> dict[str, Any]:
    return {"points": points, "plus_minus": width}


def test_interval_of_seeds_is_the_spread_of_repeated_experiments() -> None:
    """Figures = what the images do to all seeds alike + what each seed does: the interval's width is right on average."""
    random, images, seeds, count = np.random.default_rng(0), 0.4, 0.3, 3
    shared, own = random.normal(0, images, 4000), random.normal(0, seeds, (4000, count))
    figures = shared[:, None] + own
    found = [mean_of_seeds([part(point, 1.96 * images) for point in row]) for row in figures]
    assert np.allclose([one["points"] for one in found], figures.mean(1))
    deviation = figures.mean(1).std()
    assert np.sqrt(np.mean([one["plus_minus"] ** 2 for one in found])) == pytest.approx(1.96 * deviation, rel=0.04)


def test_interval_of_sets_is_that_of_independent_figures() -> None:
    random, widths = np.random.default_rng(1), np.array([0.3, 1.2, 0.6, 0.9])
    figures = random.normal([1.0, -1.0, 0.5, 0.0], widths / 1.96, (20000, 4))
    found = [mean_of_sets([part(point, width) for point, width in zip(row, widths)]) for row in figures[:5]]
    for row, one in zip(figures, found):
        assert one is not None and one["points"] == pytest.approx(row.mean())
        assert one["plus_minus"] == pytest.approx(1.96 * figures.mean(1).std(), rel=0.02)


def test_what_is_not_known_is_not_made_up() -> None:
    assert mean_of_seeds([part(1.0, 0.5)]) == part(1.0, 0.5)
    assert mean_of_seeds([part(1.0, 0.5), part(2.0, None)]) == part(1.5, None)
    assert mean_of_seeds([part(1.0, 0.5), part(None, None)]) == part(None, None)
    assert mean_of_sets([part(1.0, 0.5)]) is None
    assert mean_of_sets([part(1.0, 0.5), None, part(1.0, 0.5)]) is None
    assert mean_of_sets([part(1.0, 0.5), part(None, None)]) is None


def test_coverage() -> None:
    groups = [
        [part(0.0, 0.5), part(0.4, 0.1), part(1.0, 1.0)],  # 0 holds 0.4, 0.4 none, 1.0 both
        [part(0.0, 0.5)],  # one seed says nothing
        [part(0.0, 0.5), part(None, None), part(9.0, None)],
        [part(-1.0, 0.5), part(-1.5, 0.4)],
    ]
    assert coverage(groups) == (4, 8)
    random = np.random.default_rng(2)
    # two independent figures differ by sqrt(2) times their deviation: P(|z| < 1.96 / sqrt(2)) = 0.834
    inside, pairs = coverage([[part(point, 1.96) for point in random.normal(size=3)] for _ in range(4000)])
    assert inside / pairs == pytest.approx(0.834, abs=0.01)
