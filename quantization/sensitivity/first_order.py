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
import logging
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.progress_bar import progress_bar
from quantization.quantizers.switches import disable_quantization
from quantization.sensitivity.units import Unit
from quantization.upstream.outputs import LEAST_ENERGY, Outputs, frozen_parameters, random_directions, weighted_outputs

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class Probes:
    """The random directions of the estimator.

    Attributes:
        count: backward passes per batch.
        seed: of torch's generator.
    """

    count: int = 1
    seed: int = 0


@dataclass(frozen=True)
class UnitError:
    """The effect of a unit's quantization on the outputs, all other units in float.

    Attributes:
        unit: which.
        energy: of the error, relative to the output's energy, averaged over the output maps.
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


@contextlib.contextmanager
def probed(model: nn.Module, units: Sequence[Unit]) -> Iterator[list[Tensor]]:
    """Run ``model`` in float, with every unit's error at the unit's own ``eps``, which is zero.

    Yields:
        A list that every forward pass refills with one ``eps`` (B,) per unit, in the order of ``units``.
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
            holder.forward = probing(holder, index)
        yield steps
    finally:
        handle.remove()
        for (holder, _), own in zip(holders, before):
            vars(holder).pop("forward", None)
            if own is not None:
                holder.forward = own


def measure(
    model: nn.Module,
    units: Sequence[Unit],
    batches: Iterable[Tensor],
    probes: Probes | None = None,
    outputs: Outputs | None = None,
) -> list[UnitError]:
    """Rank units by what their quantization does to the network's outputs.

    The relative standard error of an energy is sqrt(2 / (images * probes)) at best: where few images hold most of it,
    fewer samples count.

    Args:
        model: quantized, calibrated and in eval mode; unchanged afterwards.
        units: from ``find_units``.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device.
        probes: backward passes per batch and their seed; None: one, from seed 0.
        outputs: gives the output maps, each (B, ...); None: ``upstream.outputs.weighted_outputs(model)``.

    Returns:
        One record per unit, the greatest error first.

    Raises:
        UserError: no batch came, or an output is NaN or infinite.
    """
    outputs = outputs if outputs is not None else weighted_outputs(model)
    probes = probes or Probes()
    sums, images_seen = torch.zeros(len(units), dtype=torch.float64), 0
    generator: torch.Generator | None = None
    with frozen_parameters(model), probed(model, units) as steps, torch.enable_grad():
        for images in progress_bar(batches, title="SQNR", unit="batch"):
            if generator is None:
                generator = torch.Generator(device=images.device).manual_seed(probes.seed)
            maps = [part.float() for part in outputs(images)]
            sums += _probe(maps, steps, generator, probes.count)
            images_seen += len(images)
    if not images_seen:
        raise UserError("the SQNR got no images: check the training list of the data set")
    return _ranked(units, sums / images_seen)


def _probe(maps: list[Tensor], steps: list[Tensor], generator: torch.Generator, count: int) -> Tensor:
    """Energy of each unit's error, summed over a batch and averaged over ``count`` probes: (units,) float64, CPU."""
    energy = torch.zeros(len(steps), dtype=torch.float64)
    for number in range(count):
        directions = random_directions(maps, generator)
        products = torch.autograd.grad(maps, steps, directions, retain_graph=number + 1 < count, allow_unused=True)
        found = [torch.zeros_like(step) if product is None else product for step, product in zip(steps, products)]
        energy += torch.stack(found).double().square().sum(1).cpu() / count
    return energy


def _ranked(units: Sequence[Unit], energies: Tensor) -> list[UnitError]:
    """One record per unit, the greatest error first."""
    if not bool(torch.isfinite(energies).all()):
        raise UserError(
            "the SQNR cannot be measured: an output of the network is NaN or infinite; check the checkpoint"
        )
    values = energies.tolist()
    whole = max(sum(values), LEAST_ENERGY)
    return sorted(
        (UnitError(unit, energy, energy / whole) for unit, energy in zip(units, values)),
        key=lambda error: -error.energy,
    )
