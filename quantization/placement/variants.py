"""Placements and spellings of one network that are worth timing against each other: which is fastest depends on the GPU."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Tuple

from torch import nn

from quantization.options import ExportOptions, PlacementOptions
from quantization.placement.activation_pairs import image_convolution
from quantization.placement.policy import SUM, matching_modules, placement_of, wanted_modules
from quantization.quantizers.backend import (
    INPUT_NAMES,
    OUTPUT_NAME,
    WEIGHT_NAME,
    is_enabled,
    named_quantizers,
    put_quantizer,
    set_enabled,
)
from quantization.quantizers.modules import QuantAdd
from quantization.upstream.model import head_policy

EVERY_QUANTIZER: Mapping[str, Any] = {
    "head": "int8",
    "stem": "int8",
    "activation_pairs": "stem",
}  # the placement that has the quantizers of all variants


@dataclass(frozen=True)
class Variant:
    """What one variant does otherwise than the defaults.

    Attributes:
        name: of its file, and in tables.
        placement: fields of ``PlacementOptions``; patterns of ``ignore_policy`` are added to the user's.
        graph: fields of ``ExportOptions``.
    """

    name: str
    placement: Mapping[str, Any] = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)

    def placement_options(self, ignore_policy: tuple[str, ...]) -> PlacementOptions:
        """The options of ``quantize``, with the user's ``--ignore-policy``."""
        changes = dict(self.placement)
        patterns = (*ignore_policy, *changes.pop("ignore_policy", ()))
        return replace(PlacementOptions(ignore_policy=patterns), **changes)

    def export_options(self, options: ExportOptions) -> ExportOptions:
        """The options of ``export``, where the user's are ``options``."""
        return replace(options, **self.graph)


PLAIN_STEM = {"stem": "int8", "activation_pairs": "none"}  # INT8 without a pair before its activation
# a dozen engines with FP16 and implicit PTQ: a build takes minutes. What a network makes equal is written once
VARIANTS: tuple[Variant, ...] = (
    Variant("default"),
    Variant("stem-float", {"stem": "float"}),
    Variant("stem-int8", PLAIN_STEM),
    Variant("head-float", {"head": "float"}),
    Variant("head-shared", {"head": "shared"}),
    Variant("head-input", {"head": "input"}),
    Variant("stem-int8-head-float", {**PLAIN_STEM, "head": "float"}),
    Variant("stem-int8-head-shared", {**PLAIN_STEM, "head": "shared"}),
    Variant("stem-int8-head-input", {**PLAIN_STEM, "head": "input"}),
    Variant("sums-float", {"ignore_policy": (rf".*\.{SUM}",)}),
    Variant("decode-upstream", {}, {"decode": "upstream"}),
)


Place = Tuple[str, str]  # module path, attribute of the quantizer


def enabled_places(model: nn.Module) -> frozenset[Place]:
    """Where the quantizers are that are on."""
    return frozenset((path, name) for path, name, _, quantizer in named_quantizers(model) if is_enabled(quantizer))


def wanted_places(model: nn.Module, options: PlacementOptions) -> frozenset[Place]:
    """Those of a quantized model's enabled places that a placement has.

    Raises:
        UserError: ``--ignore-policy`` matches nothing.
    """
    left, inputs, paired = wanted_modules(model, options)
    return frozenset(
        (path, name)
        for path, name in enabled_places(model)
        if path not in left
        and not (name == WEIGHT_NAME and path in inputs)
        and not (name == OUTPUT_NAME and path not in paired)
    )


def missing_places(model: nn.Module, options: PlacementOptions) -> list[str]:
    """Convolutions of a quantized model's stem and head for which a placement has quantizers that the model has not.

    What else is in float was left so when it was quantized, and stays so.
    """
    left, inputs, paired = wanted_modules(model, options)
    there = enabled_places(model)
    image = image_convolution(model)
    ends = matching_modules(model, head_policy(model)) | ({image} if image else set())
    missing = []
    for path in sorted(ends - left):
        names = {
            INPUT_NAMES[0],
            *(() if path in inputs else (WEIGHT_NAME,)),
            *((OUTPUT_NAME,) if path in paired else ()),
        }
        if isinstance(model.get_submodule(path), nn.Conv2d) and not {(path, name) for name in names} <= there:
            missing.append(path)
    return missing


def keep_places(model: nn.Module, places: frozenset[Place]) -> None:
    """Switch off, in place, the quantizers at all other places; a shared one stays on where it is kept."""
    for path, name, module, quantizer in list(named_quantizers(model)):
        if (path, name) not in places:
            alone = copy.copy(quantizer)
            set_enabled(alone, False)
            put_quantizer(module, alone, name)


def float_paths(model: nn.Module) -> set[str]:
    """Modules of a quantized model that compute in float, for the preflight."""
    there = enabled_places(model)
    weights = {path for path, name, _, _ in named_quantizers(model) if name == WEIGHT_NAME}
    sums = {path for path, module in model.named_modules() if isinstance(module, QuantAdd)}
    off = {path for path in sums if not any((path, name) in there for name in INPUT_NAMES)}
    return {*placement_of(model).unquantized, *off, *(path for path in weights if (path, WEIGHT_NAME) not in there)}
