"""The ranking as a picture."""

from __future__ import annotations

import json
from typing import Any, Sequence

from quantization.pictures import new_figure, save_figure
from quantization.placement.policy import ignore_policy


def draw_ranking(summary: str, picture: str) -> None:
    """Draw a bar for each layer or unit, the most sensitive at the top.

    Args:
        summary: JSON from ``sensitivity`` or ``sensitivity_by_sqnr``.
        picture: .png or .svg.
    """
    with open(summary, encoding="utf-8") as file:
        content = json.load(file)
    bars = len(content["units"] if "units" in content else content["layers"])
    figure = new_figure(8, 1.2 + 0.24 * bars)
    axes = figure.subplots()
    if "units" in content:
        draw_units(axes, content)
    else:
        draw_layers(axes, content)
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    save_figure(figure, picture)


def draw_layers(axes: Any, content: dict[str, Any]) -> None:
    """Each layer's gain in points of mAP."""
    layers, baseline = content["layers"][::-1], content["baseline"]
    gains = [100 * record["gain"] for record in layers]
    axes.barh(
        [f"{record['layer']} {record['type']}" for record in layers],
        gains,
        color=["#c44e52" if gain > 0 else "#8c8c8c" for gain in gains],
    )
    axes.axvline(
        100 * (baseline["float"] - baseline["quantized"]), color="#4c72b0", linestyle="--", label="all layers in float"
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("points of mAP@0.5:0.95 gained when this layer alone is left in float")
    axes.set_title(f"Sensitivity over {baseline['images']} images; all quantized: {100 * baseline['quantized']:.2f}")
    axes.legend(loc="lower right", fontsize=8)


def draw_units(axes: Any, content: dict[str, Any]) -> None:
    """Each unit's SQNR, with its share of the error energy."""
    units, proposed = content["units"][::-1], set(content["ignore_policy"])
    places = range(len(units))
    axes.barh(
        places,
        [unit["sqnr_db"] for unit in units],
        color=["#c44e52" if proposed >= set(ignore_policy(unit["modules"])) else "#8c8c8c" for unit in units],
    )
    axes.set_yticks(places)
    axes.set_yticklabels([short_name(unit["modules"]) for unit in units])
    for place, unit in zip(places, units):
        axes.text(unit["sqnr_db"], place, f" {100 * unit['share']:.1f} %", va="center", fontsize=6)
    axes.set_xlabel(
        "dB at the head's outputs with this unit alone quantized, and its share of the error energy\n"
        "red: proposed to leave in float",
        fontsize=8,
    )
    axes.set_title(f"SQNR over {content['images']} images; all quantized: {content['sqnr_db']:.1f} dB (estimate)")


def short_name(modules: Sequence[str]) -> str:
    """A unit's label: its first module, and how many more there are."""
    first = modules[0]
    return first if len(modules) == 1 else f"{first} + {len(modules) - 1} more"
