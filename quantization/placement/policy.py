"""Which layers get quantizers: everything but what measures slower or less accurate in INT8 (docs/placement.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from torch import nn

from quantization.errors import UserError
from quantization.upstream import model as upstream

HEAD_CHOICES = ("auto", "shared", "float", "input", "int8")
STEM_CHOICES = ("auto", "float", "int8")
IMAGE_CHANNELS = 4  # at most: RGB, or with alpha


@dataclass(frozen=True)
class Placement:
    """Where quantizers go.

    Attributes:
        float_layers: regular expressions for modules left in float, with all modules below them.
        float_weights: the same for convolutions whose input alone is quantized; ``float_layers`` wins.
        extras: quantize shortcut sums and nearest Upsamples too, not only layers with weights.
    """

    float_layers: tuple[str, ...] = ()
    float_weights: tuple[str, ...] = ()
    extras: bool = True


def choose_placement(
    model: nn.Module, ignore: Sequence[str] = (), head: str = "auto", stem: str = "auto", rules: bool = True
) -> Placement:
    """The placement that the command line's options ask for.

    Args:
        model: a fused model of an upstream, float or quantized.
        ignore: regular expressions of ``--ignore-policy``.
        head: the network's last convolutions: "float", "input" (INT8 input, float weight), "int8"; "shared": "input" for
            those whose tensor other layers read in INT8 too, "float" for the others; "auto": "input" for the largest of
            the shared tensors alone, where float costs the most time.
        stem: the convolution that reads the image: "float", "int8", or "auto": float if it has a stride.
        rules: False: the placement without rules: every weighted layer but the head.
    """
    last = upstream.head_policy(model)
    if not rules:
        return Placement((*ignore, *(last if head != "int8" else ())), extras=False)
    left = [*ignore]
    if stem != "int8":
        left += stem_policy(model, only_strided=stem == "auto")
    shared = upstream.shared_detect_convs(model)
    inputs = {"auto": shared[:1], "shared": shared, "input": last}.get(head, [])
    if head in ("auto", "shared", "float"):
        left += without(model, last, inputs)
    return Placement(tuple(left), tuple(inputs))


def without(model: nn.Module, patterns: Sequence[str], exceptions: Sequence[str]) -> list[str]:
    """``patterns``, or if there are exceptions, patterns for the weighted layers that only ``patterns`` match."""
    if not exceptions:
        return list(patterns)

    def among(path: str, expressions: Sequence[str]) -> bool:
        return any(re.match(rf"(?:{expression})(?:\.|$)", path) for expression in expressions)

    return [
        re.escape(path)
        for path, module in model.named_modules()
        if hasattr(module, "weight") and among(path, patterns) and not among(path, exceptions)
    ]


def recorded_placement(model: nn.Module, options: Mapping[str, Any]) -> Placement:
    """The placement of a checkpoint that ``quantize`` wrote with these options."""
    return choose_placement(
        model,
        options.get("ignore_policy", ()),
        options.get("head", "auto"),
        options.get("stem", "auto"),
        not options.get("no_rules", False),
    )


def stem_policy(model: nn.Module, only_strided: bool = True) -> list[str]:
    """The ``--ignore-policy`` that leaves the convolution that reads the image in float; empty if none is to be.

    INT8 kernels read 32 channels at a time, so three are padded to 32; FP16 kernels read 4. With a stride the padded image
    is the larger part: INT8 costs 757 us against 383 us in FP16, Reformats included (yolov5s, batch 16). Without one the
    output is larger still and is better emitted in INT8.

    Args:
        model: a fused model of an upstream.
        only_strided: leave it quantized where its stride is 1.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            strided = max(module.stride) > 1
            reads_image = module.in_channels <= IMAGE_CHANNELS  # Focus and ReOrg give 12
            return [re.escape(path)] if reads_image and (strided or not only_strided) else []
    return []


def ignored_modules(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Paths of the modules that the patterns leave in float, with all modules below them.

    Args:
        model: the float model.
        patterns: regular expressions; each is matched against whole module paths.

    Raises:
        UserError: a pattern is no regular expression, or matches no module.
    """
    paths = [path for path, _ in model.named_modules() if path]
    ignored: set[str] = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"--ignore-policy {pattern!r} is no regular expression: {error}") from error
        matched = [path for path in paths if expression.fullmatch(path)]
        if not matched:
            raise UserError(
                f"--ignore-policy {pattern!r} matches no module: it must match a whole path such as "
                f"{paths[len(paths) // 2]!r}; use .* for a part"
            )
        roots = set(matched)
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
