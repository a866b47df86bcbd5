"""Which layers or units cost the most accuracy: layers by mAP, units by the error that they make in the detections."""

from __future__ import annotations

import logging
from typing import Any, Callable, Mapping, Sequence

from torch import nn

from quantization.data.tensors import TensorLoader
from quantization.evaluation.coco import Metrics
from quantization.files import write_json
from quantization.placement.policy import ignore_policy, policy_line
from quantization.progress_bar import progress_bar
from quantization.quantizers.backend import swapped
from quantization.quantizers.switches import disable_quantization, have_quantizers
from quantization.sensitivity.first_order import Probes, UnitError, decibels, measure
from quantization.sensitivity.units import Unit, find_units
from quantization.upstream.model import layers_of

LOG = logging.getLogger("quantization")


def rank_by_map(
    model: nn.Module, evaluate: Callable[[], Metrics], policy: Sequence[str], summary: str
) -> list[dict[str, Any]]:
    """Rank the layers by the mAP that comes back when they alone are left in float, and propose what to leave in float.

    Args:
        model: quantized and calibrated.
        evaluate: measures ``model`` as it is.
        policy: ``--ignore-policy`` of this run, repeated in the proposal.
        summary: JSON file, rewritten after every layer so that an interrupted run keeps what it has.

    Returns:
        One record per layer, the most sensitive first: layer, type, map, map50, gain (map above all quantized).
    """
    everything = evaluate()
    with disable_quantization(model):
        nothing = evaluate()
    baseline = {"quantized": everything.map, "float": nothing.map, "images": everything.images}
    records: list[dict[str, Any]] = []
    layers = [(f"model.{index}", layer) for index, layer in enumerate(layers_of(model)) if have_quantizers(layer)]
    for path, layer in progress_bar(layers, title="Sensitivity", unit="layer"):
        with swapped(layer, lambda *place: nn.Identity()):  # shared quantizers stay on for the other layers
            metrics = evaluate()
        records.append({"layer": path, "type": type(layer).__name__, **_gained(metrics, everything)})
        records.sort(key=lambda record: -record["map"])
        write_json(summary, {"baseline": baseline, "layers": records})
    worst = worst_layers(records, nothing.map - everything.map)
    proposal = [*policy, *ignore_policy(worst)]
    write_json(summary, {"baseline": baseline, "layers": records, "ignore_policy": proposal})
    LOG.info("Layer left in float, mAP@0.5:0.95, gain in points:")
    for entry in records:
        LOG.info("  %-12s %-14s %.4f  %+.2f", entry["layer"], entry["type"], entry["map"], 100 * entry["gain"])
    _propose(len(worst), f"of {len(records)} layers give back half of what quantization costs", proposal)
    return records


def _gained(metrics: Metrics, quantized: Metrics) -> dict[str, float]:
    return {"map": metrics.map, "map50": metrics.map50, "gain": metrics.map - quantized.map}


def worst_layers(records: Sequence[Mapping[str, Any]], loss: float) -> list[str]:
    """Paths of the fewest layers whose gains, each measured alone, add up to half of what quantization costs.

    Args:
        records: of ``rank_by_map``, the greatest gain first.
        loss: mAP of the float model above that of the quantized one.
    """
    found: list[str] = []
    held = 0.0
    for record in records:
        if held >= loss / 2 or record["gain"] <= 0:
            break
        found.append(record["layer"])
        held += record["gain"]
    return found


def _propose(count: int, what: str, policy: Sequence[str]) -> None:
    """Log the ``--ignore-policy`` to try."""
    if count:
        LOG.info("%d %s. To leave them in float:\n  %s", count, what, policy_line(policy))
    else:
        LOG.info("Nothing to leave in float: quantization costs nothing here that a layer gives back")


def rank_by_sqnr(
    model: nn.Module, batches: TensorLoader, seed: int, policy: Sequence[str], summary: str
) -> list[UnitError]:
    """Rank the units by the error that each makes in the detections, and propose what to leave in float.

    Args:
        model: quantized and calibrated.
        batches: of training images, on the model's device.
        seed: of the probes.
        policy: ``--ignore-policy`` of this run, repeated in the proposal.
        summary: JSON file to write.

    Returns:
        One record per unit, the most sensitive first.
    """
    errors = measure(model, find_units(model), batches, Probes(seed=seed))
    LOG.info("SQNR of the detections with one unit quantized, share of the error energy, unit:")
    for error in errors:
        LOG.info("  %6.2f dB  %5.1f %%  %s", error.sqnr_db, 100 * error.share, error.unit)
    worst = worst_units(errors)
    proposal = [*policy, *ignore_policy([path for unit in worst for path in unit.modules])]
    write_units(errors, batches.image_count, proposal, summary)
    _propose(len(worst), f"of {len(errors)} units hold half of the error energy", proposal)
    return errors


def write_units(errors: Sequence[UnitError], images: int, policy: Sequence[str], summary: str) -> None:
    """Write the ranking by SQNR as JSON.

    Args:
        errors: from ``first_order.measure``.
        images: how many it saw.
        policy: what ``--ignore-policy`` to propose.
        summary: the file.
    """
    units = [
        {
            "modules": list(error.unit.modules),
            "quantizers": len(error.unit.quantizers),
            "sqnr_db": error.sqnr_db,
            "share": error.share,
        }
        for error in errors
    ]
    content = {
        "metric": "sqnr",
        "images": images,
        "sqnr_db": decibels(sum(error.energy for error in errors)),
        "units": units,
        "ignore_policy": list(policy),
    }
    write_json(summary, content)


def worst_units(errors: Sequence[UnitError], share: float = 0.5) -> list[Unit]:
    """The fewest units that hold ``share`` of the error energy.

    Args:
        errors: the greatest first.
        share: 0 to 1; without a half of the error energy the SQNR is 3 dB higher.
    """
    found: list[Unit] = []
    held = 0.0
    for error in errors:
        if held >= share or error.energy == 0:
            break
        found.append(error.unit)
        held += error.share
    return found
