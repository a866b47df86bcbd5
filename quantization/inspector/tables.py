"""Tables of a report, and how a terminal shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

Place = Tuple[int, int]  # engine (0 or 1), index of the layer


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: one per column; none in a heading.
        indent: whether it belongs to the heading above it.
        places: the layers that it is about, for a link.
    """

    label: str
    cells: Sequence[str] = ()
    indent: bool = False
    places: Sequence[Place] = ()


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the labels of the rows have no heading."""

    columns: Sequence[str]
    rows: Sequence[Row]


def table_text(table: Table) -> str:
    """Columns side by side, the cells aligned to the right."""
    lines = [("", table.columns), *((f"{'  ' if row.indent else ''}{row.label}", row.cells) for row in table.rows)]
    first = max(len(label) for label, _ in lines)
    widths = [max(len(cells[column]) for _, cells in lines if cells) for column in range(len(table.columns))]
    return "\n".join("  ".join([label.ljust(first), *map(str.rjust, cells, widths)]).rstrip() for label, cells in lines)
