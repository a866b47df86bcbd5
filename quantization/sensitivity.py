"""Sensitivity analysis: the mAP with one layer's quantizers off, for each layer in turn."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List

from torch import nn
from tqdm import tqdm

from quantization.errors import atomic_write
from quantization.evaluate import Metrics
from quantization.quantize import disable_quantization, have_quantizers
from quantization.quantizer import swapped


def sensitivity(model: nn.Module, evaluate: Callable[[], Metrics], summary: str) -> List[Dict[str, Any]]:
    """Rank the layers by the mAP that comes back when they alone are left in float.

    Args:
        model: quantized and calibrated.
        evaluate: measures ``model`` as it is.
        summary: JSON file, rewritten after every layer so that an interrupted run keeps what it has.

    Returns:
        One record a layer, the most sensitive first: layer, type, map, map50, gain (map above all quantized).
    """
    everything = evaluate()
    with disable_quantization(model):
        nothing = evaluate()
    baseline = {"quantized": everything.map, "float": nothing.map, "images": everything.images}
    records: List[Dict[str, Any]] = []
    layers = [(f"model.{index}", layer) for index, layer in enumerate(model.model) if have_quantizers(layer)]
    for path, layer in tqdm(layers, desc="Sensitivity", unit="layer"):
        with swapped(layer, lambda *place: nn.Identity()):  # shared quantizers stay on for the other layers
            metrics = evaluate()
        records.append({"layer": path, "type": type(layer).__name__, "map": metrics.map, "map50": metrics.map50,
                        "gain": metrics.map - everything.map})
        records.sort(key=lambda record: -record["map"])
        with atomic_write(summary) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"baseline": baseline, "layers": records}, file, indent=2)
    return records


def plot(summary: str, picture: str) -> None:
    """Draw a bar for each layer's gain, in points of mAP, the most sensitive at the top.

    Args:
        summary: JSON from ``sensitivity``.
        picture: .png or .svg.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(summary, encoding="utf-8") as file:
        content = json.load(file)
    layers = content["layers"][::-1]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.24 * len(layers)))
    gains = [100 * record["gain"] for record in layers]
    axes.barh([f"{record['layer']} {record['type']}" for record in layers], gains,
              color=["#c44e52" if gain > 0 else "#8c8c8c" for gain in gains])
    baseline = content["baseline"]
    axes.axvline(100 * (baseline["float"] - baseline["quantized"]), color="#4c72b0", linestyle="--",
                 label="all layers in float")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("points of mAP@0.5:0.95 gained when this layer alone is left in float")
    axes.set_title(f"Sensitivity over {baseline['images']} images; all quantized: {100 * baseline['quantized']:.2f}")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
