"""What a build is asked for: precision mode, shapes, limits. Checked here, before TensorRT is needed."""

from __future__ import annotations

import dataclasses
import re
from typing import Mapping, Tuple

from quantization.engine import versions
from quantization.errors import UserError

Shape = Tuple[int, ...]
ShapeRange = Tuple[Shape, Shape, Shape]  # min, opt, max of an optimization profile

MODES = {
    "fp16": "FP16 kernels allowed, no INT8",
    "ptq": "implicit INT8 with TensorRT's entropy calibrator, and FP16",
    "qat": "INT8 where the ONNX has Q/DQ, FP16 elsewhere",
}


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Options of one build; None leaves TensorRT's default.

    Attributes:
        mode: a key of MODES.
        batch: batch size put in place of a dynamic batch dimension.
        shapes, min_shapes, max_shapes: input name to shape, for dynamic inputs (opt, min and max of the profile).
        workspace: workspace limit in MiB.
        opt_level: builder optimization level, 0 to 5.
        tactics: the only tactic sources to use.
        tf32: whether FP32 layers may run in TF32.
        strongly_typed: build a strongly typed network (TensorRT 10; always so from 11).
        timing_cache: file of the timing cache, read if it exists and written after the build.
        calib_cache: calibration cache file of mode ptq, read if it exists and written after calibration.
    """

    mode: str
    batch: int | None = None
    shapes: Mapping[str, Shape] | None = None
    min_shapes: Mapping[str, Shape] | None = None
    max_shapes: Mapping[str, Shape] | None = None
    workspace: int | None = None
    opt_level: int | None = None
    tactics: tuple[str, ...] | None = None
    tf32: bool = True
    strongly_typed: bool = False
    timing_cache: str | None = None
    calib_cache: str | None = None

    def is_typed(self, version: versions.Version) -> bool:
        """Whether the network is strongly typed: what is not quantized then runs in the ONNX's own type."""
        return self.strongly_typed or versions.is_strongly_typed_only(version)


def parse_shapes(text: str, flag: str) -> dict[str, Shape]:
    """Read trtexec's notation, ``images:16x3x640x640`` and further inputs after a comma.

    Raises:
        UserError: the text is not of that form.
    """
    shapes: dict[str, Shape] = {}
    for part in text.split(","):
        match = re.match(r"(.+):(\d+(?:x\d+)*)$", part)
        if match is None or match.group(1) in shapes:
            raise UserError(f"{flag} {text} is not of the form NAME:16x3x640x640[,NAME:...]: correct it")
        shapes[match.group(1)] = tuple(int(size) for size in match.group(2).split("x"))
    return shapes


def format_shapes(shapes: Mapping[str, Shape]) -> str:
    """The inverse of :func:`parse_shapes`."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def parse_tactics(text: str) -> tuple[str, ...]:
    """Read ``EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS`` (a comma does as well)."""
    return tuple(name.strip().upper() for name in re.split(r"[|,]", text) if name.strip())


def check_options(options: BuildOptions, version: versions.Version) -> None:
    """Check that this TensorRT can do what is asked.

    Raises:
        UserError: it cannot.
    """
    text = ".".join(map(str, version))
    if options.mode not in MODES:
        raise UserError(f"mode {options.mode!r} is unknown: choose from {', '.join(MODES)}")
    if options.mode == "ptq" and not versions.has_implicit_ptq(version):
        raise UserError(
            f"TensorRT {text} has no implicit INT8 calibration (removed in 11.0): build ptq with TensorRT "
            "10 or older, or a Q/DQ ONNX with mode qat"
        )
    if options.mode == "ptq" and options.strongly_typed:
        raise UserError("a strongly typed network cannot be calibrated: drop --strongly-typed for mode ptq")
    if options.strongly_typed and not versions.has_strong_typing(version):
        raise UserError(f"TensorRT {text} has no strongly typed networks (10.0 has): drop --strongly-typed")
    if options.opt_level is not None and not versions.has_opt_level(version):
        raise UserError(f"TensorRT {text} has no builder optimization level (8.6 has): drop --opt-level")
    if options.opt_level is not None and not 0 <= options.opt_level <= 5:
        raise UserError(f"--opt-level {options.opt_level} is out of range: choose 0 to 5")
    known = versions.tactic_sources(version)
    for name in options.tactics or ():
        if name not in known:
            raise UserError(f"TensorRT {text} has no tactic source {name}: --tactics takes {'|'.join(known)}")


def resolve_shapes(inputs: Mapping[str, Shape], options: BuildOptions, model: str) -> dict[str, ShapeRange]:
    """The optimization profile for a network's inputs.

    Args:
        inputs: input name to shape, -1 for a dynamic dimension.
        options: batch and shapes asked for.
        model: file name for messages.

    Returns:
        min, opt and max shape for each dynamic input; empty for a static network.

    Raises:
        UserError: a shape is missing, does not fit the network, or names no input.
    """
    asked: tuple[Mapping[str, Shape], ...] = (options.min_shapes or {}, options.shapes or {}, options.max_shapes or {})
    for name in {name for shapes in asked for name in shapes}:
        if name not in inputs:
            raise UserError(f"{model} has no input {name}: --shapes names one of {', '.join(inputs)}")
    profile: dict[str, ShapeRange] = {}
    for name, shape in inputs.items():
        if -1 not in shape:
            _check_static(name, shape, asked, options.batch, model)
            continue
        opt = asked[1].get(name, (options.batch or 1, *shape[1:]) if shape[0] == -1 else shape)
        if -1 in opt:
            sizes = "x".join("?" if size == -1 else str(size) for size in opt)
            raise UserError(f"{model}: input {name} is dynamic, {sizes}: give --shapes {name}:1x3x640x640")
        low, high = asked[0].get(name, opt), asked[2].get(name, opt)
        for wanted in (low, opt, high):
            if len(wanted) != len(shape) or any(size not in (-1, want) for size, want in zip(shape, wanted)):
                raise UserError(f"{model}: shape {wanted} does not fit input {name} {tuple(shape)}: correct --shapes")
        if not all(a <= b <= c for a, b, c in zip(low, opt, high)):
            raise UserError(f"{model}: input {name} needs min <= opt <= max: correct --min-shapes and --max-shapes")
        if options.batch not in (None, opt[0]):
            raise UserError(f"--batch {options.batch} contradicts --shapes {format_shapes({name: opt})}: drop one")
        profile[name] = (tuple(low), tuple(opt), tuple(high))
    return profile


def _check_static(
    name: str, shape: Shape, asked: tuple[Mapping[str, Shape], ...], batch: int | None, model: str
) -> None:
    if any(shapes.get(name, shape) != shape for shapes in asked) or batch not in (None, shape[0]):
        fixed = format_shapes({name: shape})
        raise UserError(f"{model} is static, {fixed}: export it with --dynamic, or drop --batch and --shapes")
