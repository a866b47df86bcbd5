"""Sensitivity analysis: which layers or units cost the most, by mAP or by SQNR, and what to leave in float."""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Callable, Dict, Iterable, List, Sequence

from torch import Tensor, nn
from tqdm import tqdm

from quantization.errors import atomic_write
from quantization.evaluate import Metrics
from quantization.quantize import disable_quantization, have_quantizers
from quantization.quantizer import swapped
from quantization.sqnr import Unit, UnitError, decibels, find_units, measure

LOG = logging.getLogger("quantization")
SQNR_IMAGES = 64  # on a trained yolov5n the estimates are then 1.4 dB from brute force (standard deviation)


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
    LOG.info("Layer left in float, mAP@0.5:0.95, gain in points:")
    for entry in records:
        LOG.info("  %-12s %-14s %.4f  %+.2f", entry["layer"], entry["type"], entry["map"], 100 * entry["gain"])
    return records


def sensitivity_by_sqnr(model: nn.Module, batches: Iterable[Tensor], total: int, images: int, seed: int,
                        policy: Sequence[str], summary: str) -> List[UnitError]:
    """Rank the units by the error that each makes in the detections, and propose what to leave in float.

    Args:
        model: quantized and calibrated.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        total, images: number of batches and of images.
        seed: of the probes.
        policy: ``--ignore-policy`` of this run, repeated in the proposal.
        summary: JSON file to write.

    Returns:
        One record a unit, the most sensitive first.
    """
    errors = measure(model, find_units(model), batches, seed=seed, total=total)
    LOG.info("SQNR of the detections with one unit quantized, share of the error energy, unit:")
    for error in errors:
        LOG.info("  %6.2f dB  %5.1f %%  %s", error.sqnr_db, 100 * error.share, error.unit)
    worst = worst_units(errors)
    proposal = [*policy, *ignore_policy([path for unit in worst for path in unit.modules])]
    write_units(errors, images, proposal, summary)
    LOG.info("%d of %d units hold half of the error energy. To leave them in float:\n  %s", len(worst), len(errors),
             policy_line(proposal))
    return errors


def write_units(errors: Sequence[UnitError], images: int, policy: Sequence[str], summary: str) -> None:
    """Write the ranking by SQNR as JSON.

    Args:
        errors: from ``sqnr.measure``.
        images: how many it saw.
        policy: what ``--ignore-policy`` to propose.
        summary: the file.
    """
    units = [{"modules": list(error.unit.modules), "quantizers": len(error.unit.quantizers), "sqnr_db": error.sqnr_db,
              "share": error.share} for error in errors]
    content = {"metric": "sqnr", "images": images, "sqnr_db": decibels(sum(error.energy for error in errors)),
               "units": units, "ignore_policy": list(policy)}
    with atomic_write(summary) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)


def plot(summary: str, picture: str) -> None:
    """Draw a bar for each layer or unit, the most sensitive at the top.

    Args:
        summary: JSON from ``sensitivity`` or ``sensitivity_by_sqnr``.
        picture: .png or .svg.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(summary, encoding="utf-8") as file:
        content = json.load(file)
    bars = len(content["units"] if "units" in content else content["layers"])
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.24 * bars))
    if "units" in content:
        draw_units(axes, content)
    else:
        draw_layers(axes, content)
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    figure.tight_layout()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def draw_layers(axes: Any, content: Dict[str, Any]) -> None:
    """Each layer's gain in points of mAP."""
    layers, baseline = content["layers"][::-1], content["baseline"]
    gains = [100 * record["gain"] for record in layers]
    axes.barh([f"{record['layer']} {record['type']}" for record in layers], gains,
              color=["#c44e52" if gain > 0 else "#8c8c8c" for gain in gains])
    axes.axvline(100 * (baseline["float"] - baseline["quantized"]), color="#4c72b0", linestyle="--",
                 label="all layers in float")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("points of mAP@0.5:0.95 gained when this layer alone is left in float")
    axes.set_title(f"Sensitivity over {baseline['images']} images; all quantized: {100 * baseline['quantized']:.2f}")
    axes.legend(loc="lower right", fontsize=8)


def draw_units(axes: Any, content: Dict[str, Any]) -> None:
    """Each unit's SQNR, with its share of the error energy."""
    units, proposed = content["units"][::-1], set(content["ignore_policy"])
    places = range(len(units))
    axes.barh(places, [unit["sqnr_db"] for unit in units],
              color=["#c44e52" if proposed >= set(ignore_policy(unit["modules"])) else "#8c8c8c" for unit in units])
    axes.set_yticks(places)
    axes.set_yticklabels([short_name(unit["modules"]) for unit in units])
    for place, unit in zip(places, units):
        axes.text(unit["sqnr_db"], place, f" {100 * unit['share']:.1f} %", va="center", fontsize=6)
    axes.set_xlabel("dB at the head's outputs with this unit alone quantized, and its share of the error energy\n"
                    "red: proposed to leave in float", fontsize=8)
    axes.set_title(f"SQNR over {content['images']} images; all quantized: {content['sqnr_db']:.1f} dB (estimate)")


def short_name(modules: Sequence[str]) -> str:
    """A unit's label: its first module, and how many more there are."""
    first = modules[0]
    return first if len(modules) == 1 else f"{first} + {len(modules) - 1} more"


def worst_units(errors: Sequence[UnitError], share: float = 0.5) -> List[Unit]:
    """The fewest units that hold ``share`` of the error energy.

    Args:
        errors: the greatest first.
        share: 0 to 1; without a half of the error energy the SQNR is 3 dB higher.
    """
    found: List[Unit] = []
    held = 0.0
    for error in errors:
        if held >= share or error.energy == 0:
            break
        found.append(error.unit)
        held += error.share
    return found


def ignore_policy(modules: Sequence[str]) -> List[str]:
    """Regular expressions for ``--ignore-policy`` that leave these modules in float, and those below them."""
    return [re.escape(path) for path in modules
            if not any(path.startswith(other + ".") for other in modules)]


def policy_line(policy: Sequence[str]) -> str:
    """``--ignore-policy`` as it is typed in a shell."""
    return " ".join(["--ignore-policy", *[f"'{pattern}'" for pattern in policy]])
