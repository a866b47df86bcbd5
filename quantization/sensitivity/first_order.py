"""Signal-to-quantization-noise ratio (SQNR) at the network's outputs, for every unit from one pass over some images.

A unit is what can be left in float by itself: a scale group and the weights of the modules that it feeds. Each unit's
error is measured to first order, with all other units in float, by stochastic probing instead of a pass a unit:

    out = float_module(x) + eps * delta        delta = quantized_module(x) - float_module(x)
                                               eps = 0, one a unit and image

``d out / d eps`` is then ``J delta``, what the unit's error does to the network's outputs. For ``v ~ N(0, 1)`` on the
outputs, one backward pass gives ``v^T J delta`` of all units at once, and ``E[(v^T J delta)^2] = |J delta|^2``: the
estimator of M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
splines", Communications in Statistics 18 (1989), applied to ``(J delta)(J delta)^T``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization.errors import UserError
from quantization.files import atomic_write
from quantization.placement.policy import ignore_policy, policy_line
from quantization.quantizers.backend import named_quantizers
from quantization.quantizers.modules import ShortcutBlock
from quantization.quantizers.switches import disable_quantization
from quantization.union_find import UnionFind
from quantization.upstream.outputs import LEAST_ENERGY, Outputs, frozen_parameters, random_directions, weighted_outputs

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class Unit:
    """Quantizers that are left in float together.

    Attributes:
        modules: paths for ``--ignore-policy``, in the order of the model.
        holders: paths of the modules whose outputs hold the error: a block with a sum as a whole, since a quantizer in
            it rounds what another one has moved, and values that lie close together (behind SiLU) then round otherwise.
        quantizers: the enabled quantizers of those modules, each once.
    """

    modules: tuple[str, ...]
    holders: tuple[str, ...]
    quantizers: tuple[nn.Module, ...]

    def __str__(self) -> str:
        return ", ".join(self.modules)

    def set_float(self, on: bool) -> None:
        """Switch the unit's quantizers off, or on again."""
        for quantizer in self.quantizers:
            if on:
                quantizer.disable()
            else:
                quantizer.enable()


@dataclass(frozen=True)
class UnitError:
    """The effect of a unit's quantization on the outputs, all other units in float.

    Attributes:
        unit: which.
        energy: of the error, in parts of the output's energy, averaged over the output maps.
        share: of the sum over all units, 0 to 1.
    """

    unit: Unit
    energy: float
    share: float

    @property
    def sqnr_db(self) -> float:
        """Output energy over error energy, in dB."""
        return decibels(self.energy)


def decibels(energy: float) -> float:
    """SQNR in dB of an error energy relative to the signal's."""
    return -10 * math.log10(max(energy, LEAST_ENERGY))


def find_units(model: nn.Module) -> list[Unit]:
    """The units of a model, in its order; quantizers that are disabled belong to none.

    Modules that share a quantizer are in one unit. So are a block's sum and the modules below that block, because
    ``--ignore-policy`` cannot name the sum without the block.
    """
    joined = UnionFind()
    blocks = tuple(path for path, module in model.named_modules() if isinstance(module, ShortcutBlock))
    places: list[tuple[str, str, nn.Module]] = []  # module of the policy, holder, quantizer
    for path, _, module, quantizer in named_quantizers(model):
        if quantizer._disabled:
            continue
        block = next((block for block in blocks if path.startswith(block + ".")), path)
        policy = block if path == f"{block}.addop" else path  # the sum is no module of the float model
        places.append((policy, block, quantizer))
        joined.join(policy, str(id(quantizer)))
        joined.join(policy, block)
    units: dict[str, list[tuple[str, str, nn.Module]]] = {}
    for place in places:
        units.setdefault(joined.find(place[0]), []).append(place)
    return [Unit(*(tuple(dict.fromkeys(column)) for column in zip(*found))) for found in units.values()]


@contextlib.contextmanager
def probed(model: nn.Module, units: Sequence[Unit]) -> Iterator[list[Tensor]]:
    """Run ``model`` in float, with every unit's error at the unit's own ``eps``, which is zero.

    Yields:
        A list that every forward pass fills anew with one ``eps`` (B,) a unit, in the order of ``units``.
    """
    steps: list[Tensor] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        steps[:] = [torch.zeros(len(inputs[0]), device=inputs[0].device, requires_grad=True) for _ in units]

    def probing(holder: nn.Module, index: int) -> Callable[..., Tensor]:
        forward = holder.forward

        def both(*inputs: Any) -> Tensor:
            with disable_quantization(holder):
                exact = forward(*inputs)
            with torch.no_grad():
                delta = forward(*inputs) - exact
            # a new tensor, so that an activation behind it may work in place
            return torch.addcmul(exact, steps[index].view(-1, *[1] * (delta.dim() - 1)), delta)

        return both

    holders = [(model.get_submodule(path), index) for index, unit in enumerate(units) for path in unit.holders]
    before = [vars(holder).get("forward") for holder, _ in holders]
    handle = model.register_forward_pre_hook(begin)
    try:
        for holder, index in holders:
            holder.forward = probing(holder, index)  # type: ignore[method-assign]
        yield steps
    finally:
        handle.remove()
        for (holder, _), own in zip(holders, before):
            vars(holder).pop("forward", None)
            if own is not None:
                holder.forward = own  # type: ignore[method-assign]


def measure(
    model: nn.Module,
    units: Sequence[Unit],
    batches: Iterable[Tensor],
    outputs: Outputs | None = None,
    probes: int = 1,
    seed: int = 0,
    total: int | None = None,
) -> list[UnitError]:
    """Rank units by what their quantization does to the network's outputs.

    The relative standard error of an energy is sqrt(2 / (images * probes)) at best: where few images hold most of it,
    fewer samples count.

    Args:
        model: quantized, calibrated and in eval mode; unchanged afterwards.
        units: from ``find_units``.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        outputs: gives the output maps, each (B, ...); None: ``head_outputs.weighted_outputs(model)``.
        probes: backward passes a batch.
        seed: of the probes.
        total: number of batches, for the progress bar.

    Returns:
        One record a unit, the greatest error first.

    Raises:
        UserError: no batch came, or an output is NaN or infinite.
    """
    outputs = outputs if outputs is not None else weighted_outputs(model)
    sums, images_seen = torch.zeros(len(units), dtype=torch.float64), 0
    generator: torch.Generator | None = None
    with frozen_parameters(model), probed(model, units) as steps, torch.enable_grad():
        for images in tqdm(batches, total=total, desc="SQNR", unit="batch", leave=False):
            if generator is None:
                generator = torch.Generator(device=images.device).manual_seed(seed)
            maps = [part.float() for part in outputs(images)]
            for number in range(probes):
                products = torch.autograd.grad(
                    maps, steps, random_directions(maps, generator), retain_graph=number + 1 < probes, allow_unused=True
                )
                sums += (
                    torch.stack(
                        [torch.zeros_like(images[:, 0, 0, 0]) if product is None else product for product in products]
                    )
                    .double()
                    .square()
                    .sum(1)
                    .cpu()
                    / probes
                )
            images_seen += len(images)
    if not images_seen:
        raise UserError("the SQNR got no images: check the training list of the data set")
    if not bool(torch.isfinite(sums).all()):
        raise UserError(
            "the SQNR cannot be measured: an output of the network is NaN or infinite; check the checkpoint"
        )
    energies = (sums / images_seen).tolist()
    whole = max(sum(energies), LEAST_ENERGY)
    return sorted(
        (UnitError(unit, energy, energy / whole) for unit, energy in zip(units, energies)),
        key=lambda error: -error.energy,
    )


def sensitivity_by_sqnr(
    model: nn.Module, batches: Iterable[Tensor], total: int, images: int, seed: int, policy: Sequence[str], summary: str
) -> list[UnitError]:
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
    LOG.info(
        "%d of %d units hold half of the error energy. To leave them in float:\n  %s",
        len(worst),
        len(errors),
        policy_line(proposal),
    )
    return errors


def write_units(errors: Sequence[UnitError], images: int, policy: Sequence[str], summary: str) -> None:
    """Write the ranking by SQNR as JSON.

    Args:
        errors: from ``sqnr.measure``.
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
    with atomic_write(summary) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)


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
