"""Chart of QAT's epochs on photographs: the difference to the float network, epoch 0 being PTQ."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Mapping

from quantization.inspector.drawing import EDGE_COLORS
from quantization.inspector.layers import read_export
from quantization.pictures import new_figure

_RECIPES = {
    "qat-default": ("default: labels and layers", EDGE_COLORS["Int8"]),
    "qat-published": ("published recipe: distillation alone", "#9e9e9e"),
}


def qat_chart(result: Path) -> Any:
    """A panel for each data set: a thin line for each seed, a thick one for their mean.

    Args:
        result: what ``benchmarks/real.py`` wrote.

    Raises:
        UserError: the file cannot be read, or matplotlib is not installed.
    """
    content: Mapping[str, Any] = read_export(result)
    figure = new_figure(8.8, 5.6)
    panels = figure.subplots(2, 2, sharex=True).flat
    for axes, (name, data) in zip(panels, content["sets"].items()):
        for way, (label, color) in _RECIPES.items():
            seeds = [_points(entry["epochs"], data["float"]["torch"]["merged"]) for entry in data["ways"][way].values()]
            for points in seeds:
                axes.plot(points, color=color, linewidth=0.8, alpha=0.5)
            mean = [statistics.mean(points) for points in zip(*seeds)]
            axes.plot(mean, color=color, linewidth=2.5, label=label)
        axes.axhline(0, color="#444444", linewidth=1)
        axes.set_title(f"{name}, {len(seeds)} seeds", fontsize=10, weight="bold")
        axes.grid(alpha=0.3)
    first = figure.axes[0]
    first.legend(fontsize=8, loc="best")
    figure.supxlabel("epoch of QAT (0: PTQ)", fontsize=9)
    figure.supylabel("points of AP@0.5:0.95 against float, classes merged", fontsize=9)
    return figure


def _points(epochs: list[Mapping[str, float]], reference: float) -> list[float]:
    """Points of each epoch against the float network."""
    return [100 * (epoch["merged"] - reference) for epoch in epochs]
