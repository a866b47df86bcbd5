"""A picture of a QAT run: mAP, loss and learning rate of every epoch."""

from __future__ import annotations

import json
from typing import Any

from quantization.pictures import new_figure, save_figure

RED, BLUE, GREY = "#c44e52", "#4c72b0", "#8c8c8c"


def draw_curve(summary: str, picture: str) -> None:
    """Draw the epochs of a summary.

    Args:
        summary: JSON of the quantize command.
        picture: .png or .svg.
    """
    with open(summary, encoding="utf-8") as file:
        figures = json.load(file)["figures"]
    figure = new_figure(7, 5.5)
    accuracy, loss = figure.subplots(2, 1, sharex=True)
    _draw_accuracy(accuracy, figures)
    _draw_loss(loss, figures["qat"]["epochs"])
    save_figure(figure, picture)


def _draw_accuracy(axes: Any, figures: dict[str, Any]) -> None:
    """AP with classes merged of each epoch, which decides, with the float model's where it was measured; 0 is PTQ."""
    epochs = figures["qat"]["epochs"]
    numbers = [entry["epoch"] for entry in epochs]
    values = [100 * entry["merged"] for entry in epochs]
    axes.plot(numbers, values, marker="o", color=RED, label="QAT")
    best = numbers.index(figures["qat"]["epoch"])
    axes.plot(
        numbers[best],
        values[best],
        marker="o",
        markersize=11,
        fillstyle="none",
        color=RED,
        linestyle="",
        label=f"saved: epoch {numbers[best]}, {values[best]:.2f}",
    )
    for key, label, colour in (("float", "float", BLUE), ("ptq", "PTQ", GREY)):
        if key in figures:
            value = 100 * figures[key]["merged"]
            axes.axhline(value, color=colour, linestyle="--", label=f"{label}: {value:.2f}")
    axes.set_ylabel("AP@0.5:0.95, classes merged, points")
    axes.legend(fontsize=8)


def _draw_loss(axes: Any, epochs: list[dict[str, Any]]) -> None:
    """Loss and learning rate of each epoch; PTQ has neither."""
    epochs = [entry for entry in epochs if entry["epoch"]]
    numbers = [entry["epoch"] for entry in epochs]
    axes.plot(numbers, [entry["loss"] for entry in epochs], marker="o", color=GREY)
    axes.set_yscale("log")
    axes.set_ylabel("mean loss of the epoch")
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    rate = axes.twinx()
    rate.plot(numbers, [entry["lr"] for entry in epochs], color=BLUE, linestyle=":")
    rate.set_ylabel("learning rate at its end (dotted)", color=BLUE)
