"""Which layers get quantizers: everything but what measures slower or less accurate in INT8 (docs/placement.md)."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Collection, NamedTuple, Sequence, cast

from torch import nn

from quantization.errors import UserError
from quantization.onnx_graph.stem import faster_in_float
from quantization.options import PlacementOptions
from quantization.placement.activation_pairs import activation_pairs, image_convolution
from quantization.quantizers.backend import is_enabled, is_quantizer
from quantization.quantizers.modules import (
    ATTENTION,
    ATTENTION_REASON,
    SHORTCUTS,
    QuantConv2d,
    QuantInputConv2d,
    QuantLinear,
    QuantOutputConv2d,
    QuantUpsample,
    ShortcutBlock,
    quantized_type,
)
from quantization.upstream.model import block_types, head_policy, shared_detect_convs

LOG = logging.getLogger("quantization")
SUM = "addop"  # of a ``ShortcutBlock``, once it is quantized


@dataclass(frozen=True)
class Placement:
    """Where quantizers go: decided, by module path.

    Attributes:
        float_layers: modules that could be quantized and are left in float.
        float_weights: convolutions whose input alone is quantized.
        extras: quantize shortcut sums and nearest Upsamples too, not only layers with weights.
        paired: quantized convolutions whose output is quantized too, in front of their activation.
    """

    float_layers: tuple[str, ...] = ()
    float_weights: tuple[str, ...] = ()
    extras: bool = True
    paired: tuple[str, ...] = ()

    @property
    def unquantized(self) -> tuple[str, ...]:
        """Modules that compute in float."""
        return (*self.float_layers, *self.float_weights)


def choose_placement(model: nn.Module, options: PlacementOptions | None = None) -> Placement:
    """The placement that the options ask for.

    Args:
        model: a fused float model of an upstream.
        options: None: the defaults. ``head`` "auto" takes INT8 for the largest of the tensors that other layers read in
            INT8 too, where float costs the most time.

    Raises:
        UserError: see ``matching_modules``; or nothing is left to quantize.
    """
    options = options or PlacementOptions()
    wanted = wanted_modules(model, options)
    candidates = quantizable(model)
    placement = Placement(
        tuple(path for path in candidates if path in wanted.left),
        tuple(path for path in candidates if path in wanted.inputs),
        options.rules,
        tuple(path for path in candidates if path in wanted.paired),
    )
    quantized_types(model, placement)  # refuses an empty one before any work
    return placement


class WantedModules(NamedTuple):
    """What options ask for, by module path.

    Attributes:
        left: modules that stay float, with all below them.
        inputs: modules whose input alone is quantized.
        paired: convolutions that are quantized in front of their activation too, if they are quantized at all.
    """

    left: set[str]
    inputs: set[str]
    paired: set[str]


def wanted_modules(model: nn.Module, options: PlacementOptions) -> WantedModules:
    """What the options ask for, of a float model or of one that holds quantizers already.

    Raises:
        UserError: see ``matching_modules``.
    """
    left = matching_modules(model, options.ignore_policy)
    head = matching_modules(model, head_policy(model))
    inputs: set[str] = set()
    paired: set[str] = set()
    if options.rules:
        paired = activation_pairs(model, options.activation_pairs)
        left |= float_stem(model, options.stem, paired)
        shared = shared_detect_convs(model)
        chosen = {"auto": shared[:1], "shared": shared, "input": head_policy(model)}.get(options.head, [])
        inputs = matching_modules(model, chosen)
    if options.head != "int8":
        left |= head - inputs
    left |= attention_layers(model)
    inputs -= left
    return WantedModules(left, inputs, paired - left - inputs)


def quantized_types(model: nn.Module, placement: Placement) -> dict[str, type[nn.Module]]:
    """Path of each module of a float model that gets quantizers, and the class that it becomes.

    Args:
        model: in float.
        placement: where quantizers go.

    Raises:
        UserError: there is none.
    """
    found: dict[str, type[nn.Module]] = {}
    for path, target in quantizable(model).items():
        if path in placement.float_layers or not (placement.extras or hasattr(model.get_submodule(path), "weight")):
            continue
        if path in placement.paired:
            found[path] = QuantOutputConv2d
        elif path not in placement.float_weights:
            found[path] = target
        elif target is QuantConv2d:
            found[path] = QuantInputConv2d
    if not found:
        raise UserError("--ignore-policy leaves nothing to quantize: every layer would stay in float")
    return found


def placement_of(model: nn.Module) -> Placement:
    """The placement of a quantized model, read off its modules and enabled quantizers."""
    shortcuts = block_types(SHORTCUTS)
    left: list[str] = []
    inputs: list[str] = []
    paired: list[str] = []
    extras = False
    for path, module in model.named_modules():
        if isinstance(module, (QuantConv2d, QuantInputConv2d, QuantLinear, QuantUpsample, ShortcutBlock)):
            own = module.addop if isinstance(module, ShortcutBlock) else module
            extras |= isinstance(module, (QuantUpsample, ShortcutBlock))
            if not any(is_enabled(part) for part in own.children() if is_quantizer(part)):
                left.append(path)
            elif isinstance(module, QuantInputConv2d):
                inputs.append(path)
            elif isinstance(module, QuantOutputConv2d):
                paired.append(path)
        elif quantized_type(module, shortcuts) is not None:
            left.append(path)
    return Placement(tuple(left), tuple(inputs), extras, tuple(paired))


def quantizable(model: nn.Module) -> dict[str, type[nn.Module]]:
    """Path of each float module that can be quantized, and the class that it would become."""
    shortcuts = block_types(SHORTCUTS)
    found = {path: quantized_type(module, shortcuts) for path, module in model.named_modules()}
    return {path: target for path, target in found.items() if target is not None}


def attention_blocks(model: nn.Module) -> list[str]:
    """Paths of the outermost attention blocks. Their linear layers stay float; a convolution in them does not."""
    kinds = tuple(block_types(ATTENTION))
    blocks: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, kinds) and not any(path.startswith(block + ".") for block in blocks):
            blocks.append(path)
    return blocks


def attention_layers(model: nn.Module) -> set[str]:
    """Paths of the linear layers that stay float (``ATTENTION_REASON``), logged by block."""
    layers: set[str] = set()
    for block in attention_blocks(model):
        inside = {
            path for path, module in model.named_modules() if path.startswith(block + ".") and type(module) is nn.Linear
        }
        LOG.info("%s: %d linear layers are left float: %s", block, len(inside), ATTENTION_REASON)
        layers |= inside
    return layers


def float_stem(model: nn.Module, choice: str, paired: Collection[str]) -> set[str]:
    """The path of the convolution that reads the image if it is to stay float; "auto" as ``faster_in_float`` says.

    Args:
        model: a fused model of an upstream, in float or with quantizers.
        choice: one of ``options.STEMS``.
        paired: convolutions with a pair before their activation.
    """
    path = image_convolution(model)
    if path is None or choice == "int8":
        return set()
    convolution = cast(nn.Conv2d, model.get_submodule(path))
    splits = path not in paired and path in activation_pairs(model, "stem")
    is_float = choice == "float" or faster_in_float(convolution.kernel_size, convolution.stride, splits)
    return {path} if is_float else set()


def matching_modules(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Paths of the modules that patterns match, with all modules below them; a pattern must match a whole path.

    A sum goes by the name that reports give it, ``model.2.m.0.addop``, and stands for its block without the layers in it.

    Args:
        model: any model.
        patterns: regular expressions.

    Raises:
        UserError: a pattern is no regular expression, or matches no module.
    """
    paths = [path for path, _ in model.named_modules() if path]
    sums = {f"{path}.{SUM}": path for path, target in quantizable(model).items() if issubclass(target, ShortcutBlock)}
    ignored: set[str] = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"--ignore-policy {pattern!r} is no regular expression: {error}") from error
        matched = [path for path in paths if expression.fullmatch(path)]
        matched_sums = [block for path, block in sums.items() if expression.fullmatch(path)]
        if not matched and not matched_sums:
            raise UserError(
                f"--ignore-policy {pattern!r} matches no module: it must match a whole path such as "
                f"{paths[len(paths) // 2]!r}; use .* for a part"
            )
        roots = set(matched)
        ignored.update(matched_sums)  # the sum of a block alone, not the layers in it
        ignored.update(path for path in paths if any(path[:end] in roots for end in prefix_ends(path)))
    return ignored


def prefix_ends(path: str) -> list[int]:
    """Where the prefixes of a dotted path end, the whole path included."""
    return [index for index, letter in enumerate(path) if letter == "."] + [len(path)]


def ignore_policy(modules: Sequence[str]) -> list[str]:
    """Regular expressions for ``--ignore-policy`` that leave these modules in float, and those below them."""
    return [re.escape(path) for path in modules if not any(path.startswith(other + ".") for other in modules)]


def policy_line(policy: Sequence[str]) -> str:
    """``--ignore-policy`` as it is typed in a shell."""
    return " ".join(["--ignore-policy", *[f"'{pattern}'" for pattern in policy]])
