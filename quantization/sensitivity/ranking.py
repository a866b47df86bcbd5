"""Sensitivity analysis: which layers or units cost the most, by mAP or by SQNR, and what to leave in float."""

from __future__ import annotations

import json
import logging
from typing import Any, Callable

from torch import nn
from tqdm import tqdm

from quantization.evaluation.coco import Metrics
from quantization.files import atomic_write
from quantization.quantizers.backend import swapped
from quantization.quantizers.switches import disable_quantization, have_quantizers

LOG = logging.getLogger("quantization")


def sensitivity(model: nn.Module, evaluate: Callable[[], Metrics], summary: str) -> list[dict[str, Any]]:
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
    records: list[dict[str, Any]] = []
    layers = [(f"model.{index}", layer) for index, layer in enumerate(model.model) if have_quantizers(layer)]
    for path, layer in tqdm(layers, desc="Sensitivity", unit="layer"):
        with swapped(layer, lambda *place: nn.Identity()):  # shared quantizers stay on for the other layers
            metrics = evaluate()
        records.append(
            {
                "layer": path,
                "type": type(layer).__name__,
                "map": metrics.map,
                "map50": metrics.map50,
                "gain": metrics.map - everything.map,
            }
        )
        records.sort(key=lambda record: -record["map"])
        with atomic_write(summary) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"baseline": baseline, "layers": records}, file, indent=2)
    LOG.info("Layer left in float, mAP@0.5:0.95, gain in points:")
    for entry in records:
        LOG.info("  %-12s %-14s %.4f  %+.2f", entry["layer"], entry["type"], entry["map"], 100 * entry["gain"])
    return records
