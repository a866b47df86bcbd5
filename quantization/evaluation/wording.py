"""Figures in words: a mAP with its interval, a difference, classes with few boxes. No torch."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

FEW_BOXES = 10  # a class with fewer has an AP that one detection moves by points
TITLES = {"map": "mAP@0.5:0.95", "map50": "mAP@0.5", "merged": "classes merged"}


def figures_text(metrics: Mapping[str, Any]) -> str:
    """The figures of ``Metrics.content()`` with their intervals, in one line."""
    widths = metrics["plus_minus"]
    return ", ".join(
        f"{title} {metrics[key]:.4f}{plus_minus_text(widths.get(key), 4)}" for key, title in TITLES.items()
    )


def difference_text(found: Mapping[str, Any], reference: str) -> str:
    """A difference as ``bootstrap.difference`` gives it, in one line."""
    figures = ", ".join(f"{title} {points_text(found[key])}" for key, title in TITLES.items())
    return f"against {reference}, in points: {figures}"


def points_text(found: Mapping[str, Any]) -> str:
    """A figure's difference in points with its interval: "-0.48 +- 0.35"; "none" where it has none."""
    if found["points"] is None:
        return "none"
    points = round(found["points"], 2) + 0.0  # no "-0.00"
    return f"{points:+.2f}{plus_minus_text(found['plus_minus'], 2)}"


def rare_classes_text(names: Sequence[str], counts: Iterable[int]) -> str | None:
    """One line that names the classes with few boxes; None where there is none.

    Args:
        names: of all classes.
        counts: their numbers of boxes; classes without any are left out, as the mAP leaves them out.
    """
    rare = [f"{name} ({count})" for name, count in zip(names, counts) if 0 < count < FEW_BOXES]
    if not rare:
        return None
    return (
        f"Fewer than {FEW_BOXES} boxes in validation, but as much weight in the mAP as any class: {', '.join(rare)}; "
        '"classes merged" counts every box the same'
    )


def plus_minus_text(half_width: float | None, digits: int) -> str:
    """The end of a figure: half of the width of its interval, if it has one.

    Args:
        half_width: None: it has none.
        digits: behind the point.
    """
    return "" if half_width is None else f" +- {half_width:.{digits}f}"
