"""Charts of the report as SVG in the page's own colours, which follow its light or dark scheme."""

from __future__ import annotations

from html import escape
from typing import Any, Mapping, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 260, 56, 150, 14, 34
LEVELS = {"float": "float", "ptq": "PTQ"}
LINE_HEIGHT = 15  # pixels between labels


def deciding_figure(figures: Mapping[str, Any]) -> str:
    """The figure that QAT's epoch was chosen by: "merged", or in older summaries "map"."""
    return "merged" if all("merged" in entry for entry in figures["qat"]["epochs"]) else "map"


def curve_svg(figures: Mapping[str, Any]) -> str:
    """Curve of QAT's epochs by ``deciding_figure``, with the float and the PTQ model's levels; labels at the right, apart.

    Args:
        figures: of a summary, with "qat" and its "epochs".
    """
    epochs, key = figures["qat"]["epochs"], deciding_figure(figures)
    values = [100 * entry[key] for entry in epochs]
    levels = {title: 100 * figures[name][key] for name, title in LEVELS.items() if name in figures}
    low, high = min([*values, *levels.values()]), max([*values, *levels.values()])
    room = max(0.15 * (high - low), 0.1)
    low, high = low - room, high + room
    last = max(len(values) - 1, 1)

    def x(index: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * index / last

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_grid(low, high, y), _epochs(epochs, x)]
    for title, value in levels.items():
        parts.append(
            f'<line class="level {title}" x1="{LEFT}" x2="{x(last):.1f}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
    points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    saved = _saved_place(figures["qat"], values)
    for index, value in enumerate(values):
        radius = 6 if index == saved else 3
        parts.append(f'<circle class="dot" cx="{x(index):.1f}" cy="{y(value):.1f}" r="{radius}"/>')
    labels = [(y(value), f"{title} {value:.2f}") for title, value in levels.items()]
    labels.append((y(values[-1]), f"QAT, saved {values[saved]:.2f}"))
    for height, text in apart(labels):
        parts.append(f'<text x="{x(last) + 12:.1f}" y="{height + 4:.1f}">{escape(text)}</text>')
    return f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}"><title>epochs of QAT</title>{"".join(parts)}</svg>'


def _saved_place(qat: Mapping[str, Any], values: Sequence[float]) -> int:
    """Index of the epoch whose weights were saved; in older summaries the best one."""
    numbers = [entry["epoch"] for entry in qat["epochs"]]
    return numbers.index(qat["epoch"]) if "epoch" in qat else max(range(len(values)), key=values.__getitem__)


def apart(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Labels moved down as far as they would overlap: (height in pixels, text) from the top."""
    placed: list[tuple[float, str]] = []
    for height, text in sorted(labels):
        least = placed[-1][0] + LINE_HEIGHT if placed else TOP
        placed.append((max(height, least), text))
    beyond = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0.0
    return [(height - max(beyond, 0.0), text) for height, text in placed]


def _grid(low: float, high: float, y: Any) -> str:
    step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (high - low) / step <= 6)
    lines, value = [], step * (1 + low // step)
    while value < high:
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        lines.append(f'<text class="axis" text-anchor="end" x="{LEFT - 8}" y="{y(value) + 4:.1f}">{value:.4g}</text>')
        value += step
    return "".join(lines)


def _epochs(epochs: Sequence[Mapping[str, Any]], x: Any) -> str:
    """Numbers of the epochs, as many as there is room for."""
    every = -(-len(epochs) // 12)
    texts = [
        f'<text class="axis" text-anchor="middle" x="{x(index):.1f}" y="{HEIGHT - 14}">{int(entry["epoch"])}</text>'
        for index, entry in enumerate(epochs)
        if index % every == 0
    ]
    return "".join(texts) + f'<text class="axis" x="{WIDTH - RIGHT + 12}" y="{HEIGHT - 14}">epoch</text>'


def bars_html(rows: Sequence[tuple[str, float, str]]) -> str:
    """Bars beside each other's labels, as long as their values.

    Args:
        rows: label, value from 0, and the value in words.
    """
    largest = max([value for _, value, _ in rows] or [0.0]) or 1.0
    lines = [
        f'<tr><td class="name">{escape(label)}</td><td class="bar"><span style="width:{max(100 * value / largest, 0):.1f}%">'
        f"</span></td><td class=number>{escape(text)}</td></tr>"
        for label, value, text in rows
    ]
    return f'<table class="bars">{"".join(lines)}</table>'
