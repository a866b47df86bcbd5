"""Differences to the float model of several seeds and sets in one figure, and what an interval covers.

A difference is {"points": of 100, "plus_minus": half of the width of its 95 % interval}; either can be None. The interval of
one network is the bootstrap's, over the validation images.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Iterable, NamedTuple, Sequence

from bundle import BUNDLE  # noqa: F401  # puts the bundle on the import path

from quantization.evaluation.bootstrap import DEVIATIONS


class Coverage(NamedTuple):
    """How many figures of other seeds lie in the interval of one."""

    inside: int
    pairs: int


def mean_of_seeds(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean over seeds that were measured on the same images.

    What the images do to one seed they do to the others, so their part of the interval does not shrink with the number of
    seeds; what the seeds do is estimated from their spread, and does: sqrt(mean(w^2) + (1.96 s)^2 / n), w half widths.

    Args:
        parts: differences, one or more.
    """
    points = [part["points"] for part in parts]
    if any(point is None for point in points):
        return {"points": None, "plus_minus": None}
    mean = statistics.fmean(points)
    widths = [part["plus_minus"] for part in parts]
    if any(width is None for width in widths):
        return {"points": mean, "plus_minus": None}
    spread = DEVIATIONS**2 * statistics.variance(points) / len(points) if len(points) > 1 else 0.0
    return {"points": mean, "plus_minus": math.sqrt(statistics.fmean(width**2 for width in widths) + spread)}


def mean_of_sets(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The mean over sets, which are independent: sqrt(sum(w^2)) / n. None for fewer than two, or where one is missing."""
    known = [part for part in parts if part is not None and part["points"] is not None]
    if len(known) < 2 or len(known) < len(parts):
        return None
    width = math.sqrt(sum((part["plus_minus"] or 0.0) ** 2 for part in known)) / len(known)
    return {"points": statistics.fmean(part["points"] for part in known), "plus_minus": width}


def coverage(groups: Iterable[Sequence[dict[str, Any]]]) -> Coverage:
    """How often the interval of one seed holds the figure of another one, over all ordered pairs.

    Args:
        groups: the seeds' differences of one way and set each.
    """
    inside = pairs = 0
    for group in groups:
        known = [part for part in group if part["points"] is not None and part["plus_minus"] is not None]
        for number, part in enumerate(known):
            for other in known[:number] + known[number + 1 :]:
                pairs += 1
                inside += abs(part["points"] - other["points"]) <= part["plus_minus"]
    return Coverage(inside, pairs)
