"""One calibration for several placements of a network: images are shown once, then each placement gets its own scales.

A range depends on the tensor alone, and a group's scale on the tensors that its quantizers read. So the network with every
quantizer is calibrated, and the counts of the tensors that a placement reads give the scales that a calibration of that
placement would. Only the gradients of method "sqnr" depend on who reads a tensor in INT8: they are counted apart for the
readers that some placements have and others lack, and added up for each placement.
"""

from __future__ import annotations

from typing import Collection, FrozenSet, Iterable, Sequence

import torch
from torch import Tensor, nn

from quantization.calibration.calibrate import (
    Owners,
    calibrate_weights,
    collect,
    probe_gradients,
    repeatable,
    set_scales,
)
from quantization.calibration.gradient_ranges import GradientHistogram
from quantization.calibration.group_ranges import detection_scales
from quantization.options import CalibrationOptions
from quantization.placement.scale_groups import place_name
from quantization.quantizers.backend import WEIGHT_NAME, is_enabled, make_quantizer, named_quantizers, swapped
from quantization.ranges.group_scales import SharedTensors, group_scales

Places = FrozenSet[str]  # of activation quantizers, by ``place_name``


class _Readers:
    """Places of one scale group that every placement has either all or none of, and the gradients for what they read."""

    def __init__(self, group: SharedTensors, places: Places) -> None:
        self.places = places
        self.tensors = group.read_by(places)
        self.gradients: Sequence[GradientHistogram | None] = []


def input_places(places: Collection[tuple[str, str]]) -> Places:
    """The activation quantizers of (module path, attribute)."""
    return frozenset(place_name(path, name) for path, name in places if name != WEIGHT_NAME)


class CommonCalibration:
    """What calibration counted.

    Args:
        model: with the quantizers of all placements, those of each scale group joined. Its weights get their scales.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device; iterated twice by method "sqnr".
        options: of the calibration.
        placements: the places that each placement has, some of the model's.

    Raises:
        UserError: see ``calibrate_model``.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Tensor], options: CalibrationOptions, placements: Sequence[Places]
    ) -> None:
        self._options = options
        model.eval()
        with torch.no_grad(), repeatable():
            calibrate_weights(model)
            self._groups, _, images = collect(model, batches, options.method, None)
            self._readers: dict[str, list[_Readers]] = {
                key: _divided(group, placements) for key, group in self._groups.items()
            }
            if options.method == "sqnr":
                self._probe(model, batches, images)
        self._key_of = {
            place_name(path, name): str(id(quantizer))
            for path, name, _, quantizer in named_quantizers(model)
            if str(id(quantizer)) in self._groups
        }
        self._model = model  # whose quantizers' ids are names

    def _probe(self, model: nn.Module, batches: Iterable[Tensor], images: int) -> None:
        """Count the gradients, with a quantizer for each part of a group."""
        stand_ins = {id(part): make_quantizer() for parts in self._readers.values() for part in parts}
        part_at = {place: part for parts in self._readers.values() for part in parts for place in part.places}

        def stand_in(path: str, name: str, quantizer: nn.Module) -> nn.Module:
            part = None if name == WEIGHT_NAME else part_at.get(place_name(path, name))
            return quantizer if part is None else stand_ins[id(part)]

        named = {str(id(stand_ins[id(part)])): part for part in part_at.values()}
        with swapped(model, stand_in):
            found = probe_gradients(model, {key: part.tensors for key, part in named.items()}, batches, images)
        for key, part in named.items():
            part.gradients = found[key]

    @torch.no_grad()
    def set_ranges(self, model: nn.Module) -> None:
        """Set the scales of a copy of the calibrated model in which the quantizers that a placement lacks are off."""
        owners: Owners = {}
        members: dict[str, list[str]] = {}
        for path, name, _, quantizer in named_quantizers(model):
            if name != WEIGHT_NAME and is_enabled(quantizer):
                owners.setdefault(str(id(quantizer)), (path, quantizer))
                members.setdefault(str(id(quantizer)), []).append(place_name(path, name))
        groups, gradients = {}, {}
        for key, places in members.items():
            source = next((self._key_of[place] for place in places if place in self._key_of), None)
            groups[key] = (
                SharedTensors(self._options.method) if source is None else self._groups[source].read_by(places)
            )
            gradients[key] = [] if source is None else _added(groups[key], self._readers[source], places)
        other = None
        if self._options.method == "sqnr":
            other = detection_scales(groups, self._options.group_scale, gradients)
        scales = group_scales(groups, self._options.group_scale, other)
        set_scales(owners, scales, next(model.parameters()).device, advise=False)


def _divided(group: SharedTensors, placements: Sequence[Places]) -> list[_Readers]:
    """The readers of a group, those together that the same placements have."""
    kinds: dict[tuple[bool, ...], list[str]] = {}
    for place in dict.fromkeys(place for readers in group.readers for place in readers):
        kinds.setdefault(tuple(place in placement for placement in placements), []).append(place)
    return [_Readers(group, frozenset(places)) for places in kinds.values()]


def _added(group: SharedTensors, parts: Sequence[_Readers], places: Sequence[str]) -> list[GradientHistogram | None]:
    """The gradients of a placement's group for each of its tensors: of all parts that the placement has."""
    chosen = [part for part in parts if part.places <= set(places)]
    result: list[GradientHistogram | None] = []
    for tensor in group.tensors:
        found = [
            gradient
            for part in chosen
            for own, gradient in zip(part.tensors.tensors, part.gradients)
            if own is tensor and gradient is not None
        ]
        result.append(found[0].plus(found[1:]) if found else None)
    return result
