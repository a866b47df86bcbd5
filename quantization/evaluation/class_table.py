"""AP of each class for a terminal: the classes that have boxes, the lowest first, and the others in one line. No torch."""

from __future__ import annotations

from typing import Mapping

from quantization.tables import Row, Table, table_text

NAMED = 8  # classes without boxes that the line names


def class_text(per_class: Mapping[str, float]) -> str:
    """Lines of AP@0.5:0.95 by class, the lowest first.

    Args:
        per_class: class name to AP; -1 where a class has no box.
    """
    present = sorted((item for item in per_class.items() if item[1] >= 0), key=lambda item: item[1])
    absent = [name for name, value in per_class.items() if value < 0]
    lines = [table_text(Table(("AP@0.5:0.95",), [Row(name, [f"{value:.4f}"]) for name, value in present]))]
    if absent:
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        lines.append(f"no box of {len(absent)} of {len(per_class)} classes: {', '.join(absent[:NAMED])}{more}")
    return "\n".join(lines)
