"""AP of each class for a terminal: the classes that have boxes, the lowest first, and the others in one line. No torch."""

from __future__ import annotations

from typing import Any, Mapping

from quantization.evaluation.wording import plus_minus_text, points_text
from quantization.tables import Row, Table, table_text

NAMED = 8  # classes without boxes that the line names


def class_text(metrics: Mapping[str, Any]) -> str:
    """Lines of AP@0.5:0.95 by class with its interval, number of boxes, and points apart from each reference.

    Args:
        metrics: ``Metrics.content()``.
    """
    per_class: Mapping[str, float] = metrics["per_class"]
    present = sorted((item for item in per_class.items() if item[1] >= 0), key=lambda item: item[1])
    absent = [name for name, value in per_class.items() if value < 0]
    references: Mapping[str, Any] = metrics["against"]
    rows = [
        Row(
            name,
            [
                f"{value:.4f}{plus_minus_text(metrics['plus_minus']['per_class'][name], 4)}",
                str(metrics["boxes"][name]),
                *(points_text(found["per_class"][name]) for found in references.values()),
            ],
        )
        for name, value in present
    ]
    lines = [table_text(Table(("AP@0.5:0.95", "boxes", *(f"against {name}" for name in references)), rows))]
    if absent:
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        lines.append(f"no box of {len(absent)} of {len(per_class)} classes: {', '.join(absent[:NAMED])}{more}")
    return "\n".join(lines)
