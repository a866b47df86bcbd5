"""Tables, and how a terminal and a page show them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Callable, Sequence, Tuple
from unicodedata import combining, east_asian_width

Place = Tuple[int, int]  # engine (0 or 1), index of the layer


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        cells: one per column; none in a heading.
        indent: whether it belongs to the heading above it.
        places: the layers of engines that it is about, for a link.
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
    first = max(shown_width(label) for label, _ in lines)
    widths = [max(len(cells[column]) for _, cells in lines if cells) for column in range(len(table.columns))]
    return "\n".join(
        "  ".join([label + " " * (first - shown_width(label)), *map(str.rjust, cells, widths)]).rstrip()
        for label, cells in lines
    )


def shown_width(text: str) -> int:
    """Columns that a terminal gives a text: two for each character of Chinese, Japanese and Korean, none for accents."""
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def label_html(row: Row) -> str:
    """A row's label, escaped."""
    return escape(row.label)


def table_html(table: Table, label: Callable[[Row], str] = label_html) -> str:
    """The table for a page, everything escaped.

    Args:
        table: what to show.
        label: HTML of a row's label; it may be a link.
    """
    lines = [f"<tr><th></th>{''.join(f'<th>{escape(name)}</th>' for name in table.columns)}</tr>"]
    for row in table.rows:
        if not row.cells:
            lines.append(f"<tr><th colspan={len(table.columns) + 1}>{label(row)}</th></tr>")
            continue
        cells = "".join(f"<td class=number>{escape(cell)}</td>" for cell in row.cells)
        lines.append(f"<tr><td{' class=indent' if row.indent else ''}>{label(row)}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
