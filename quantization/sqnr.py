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
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization.errors import UserError
from quantization.modules import ShortcutBlock
from quantization.quantize import disable_quantization
from quantization.quantizer import named_quantizers
from quantization.graph import UnionFind
from quantization.head_outputs import LEAST_ENERGY, Outputs, frozen_parameters, random_directions, weighted_outputs


@dataclass(frozen=True)
class Unit:
    """Quantizers that are left in float together.

    Attributes:
        modules: paths for ``--ignore-policy``, in the order of the model.
        holders: paths of the modules whose outputs hold the error: a block with a sum as a whole, since a quantizer in
            it rounds what another one has moved, and values that lie close together (behind SiLU) then round otherwise.
        quantizers: the enabled quantizers of those modules, each once.
    """

    modules: Tuple[str, ...]
    holders: Tuple[str, ...]
    quantizers: Tuple[nn.Module, ...]

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


def find_units(model: nn.Module) -> List[Unit]:
    """The units of a model, in its order; quantizers that are disabled belong to none.

    Modules that share a quantizer are in one unit. So are a block's sum and the modules below that block, because
    ``--ignore-policy`` cannot name the sum without the block.
    """
    joined = UnionFind()
    blocks = tuple(path for path, module in model.named_modules() if isinstance(module, ShortcutBlock))
    places: List[Tuple[str, str, nn.Module]] = []  # module of the policy, holder, quantizer
    for path, _, module, quantizer in named_quantizers(model):
        if quantizer._disabled:
            continue
        block = next((block for block in blocks if path.startswith(block + ".")), path)
        policy = block if path == f"{block}.addop" else path  # the sum is no module of the float model
        places.append((policy, block, quantizer))
        joined.join(policy, str(id(quantizer)))
        joined.join(policy, block)
    units: Dict[str, List[Tuple[str, str, nn.Module]]] = {}
    for place in places:
        units.setdefault(joined.find(place[0]), []).append(place)
    return [Unit(*(tuple(dict.fromkeys(column)) for column in zip(*found))) for found in units.values()]


@contextlib.contextmanager
def probed(model: nn.Module, units: Sequence[Unit]) -> Iterator[List[Tensor]]:
    """Run ``model`` in float, with every unit's error at the unit's own ``eps``, which is zero.

    Yields:
        A list that every forward pass fills anew with one ``eps`` (B,) a unit, in the order of ``units``.
    """
    steps: List[Tensor] = []

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


def measure(model: nn.Module, units: Sequence[Unit], batches: Iterable[Tensor], outputs: Optional[Outputs] = None,
            probes: int = 1, seed: int = 0, total: Optional[int] = None) -> List[UnitError]:
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
    generator: Optional[torch.Generator] = None
    with frozen_parameters(model), probed(model, units) as steps, torch.enable_grad():
        for images in tqdm(batches, total=total, desc="SQNR", unit="batch", leave=False):
            if generator is None:
                generator = torch.Generator(device=images.device).manual_seed(seed)
            maps = [part.float() for part in outputs(images)]
            for number in range(probes):
                products = torch.autograd.grad(maps, steps, random_directions(maps, generator),
                                               retain_graph=number + 1 < probes, allow_unused=True)
                sums += torch.stack([torch.zeros_like(images[:, 0, 0, 0]) if product is None else product
                                     for product in products]).double().square().sum(1).cpu() / probes
            images_seen += len(images)
    if not images_seen:
        raise UserError("the SQNR got no images: check the training list of the data set")
    if not bool(torch.isfinite(sums).all()):
        raise UserError("the SQNR cannot be measured: an output of the network is NaN or infinite; check the "
                        "checkpoint")
    energies = (sums / images_seen).tolist()
    whole = max(sum(energies), LEAST_ENERGY)
    return sorted((UnitError(unit, energy, energy / whole) for unit, energy in zip(units, energies)),
                  key=lambda error: -error.energy)
