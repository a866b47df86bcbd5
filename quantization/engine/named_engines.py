"""From the arguments of bench-engine.py to the engines that they name."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from typing import Optional, Sequence, Tuple

from quantization.engine.options import MODES, BuildOptions, parse_shapes, parse_tactics
from quantization.engine.specs import EngineSpec
from quantization.errors import UserError

Wanted = Tuple[str, str, Optional[str], Optional[str]]  # name, mode, ONNX, plan


def make_specs(args: argparse.Namespace, first: Sequence[Wanted] = ()) -> list[EngineSpec]:
    """The engines that the arguments name, behind ``first``.

    Raises:
        UserError: there is none, a name comes twice, or one output file would be written by several engines.
    """
    wanted = [*first, *_wanted(args)]
    if not wanted:
        raise UserError("no engine named: give an ONNX file, --engine or --load-engine (see --help)")
    _check_names(wanted)
    names = [name for name, _, _, _ in wanted]
    calibrated = [name for name, mode, onnx, _ in wanted if mode == "ptq" and onnx]
    shared = _options(args)
    specs = []
    for name, mode, onnx, plan in wanted:
        cache = _expand(args.calib_cache, "--calib-cache", name, calibrated) if name in calibrated else None
        if onnx and args.save_engine:
            suffix = "" if shared.batch is None else f"-b{shared.batch}"
            plan = os.path.join(args.save_engine, f"{name}{suffix}.plan")
        specs.append(
            EngineSpec(
                name,
                dataclasses.replace(shared, mode=mode, calib_cache=cache),
                onnx,
                plan,
                _expand(args.export_layer_info, "--export-layer-info", name, names),
                _expand(args.export_profile, "--export-profile", name, names),
            )
        )
    return specs


def _wanted(args: argparse.Namespace) -> list[Wanted]:
    wanted: list[Wanted] = []
    if args.modes and not args.onnx:
        raise UserError("--modes needs an ONNX file: bench-engine.py MODEL.onnx --modes fp16,ptq")
    if args.onnx:
        wanted += [(mode, mode, args.onnx, None) for mode in (args.modes or "fp16").split(",")]
    for text in args.engine:
        match = re.match(r"([^=]+)=([^:=]+):(.+)$", text)
        if match is None:
            raise UserError(f"--engine {text} is not of the form NAME=MODE:FILE.onnx: correct it")
        wanted.append((match.group(1), match.group(2), match.group(3), None))
    for text in args.load_engine:
        name, _, plan = text.rpartition("=")
        wanted.append((name or os.path.splitext(os.path.basename(plan))[0], "fp16", None, plan))
    return wanted


def _check_names(wanted: Sequence[Wanted]) -> None:
    names = [name for name, _, _, _ in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two engines are called {name}: name them with --engine NAME=MODE:FILE.onnx")
        if os.path.basename(name) != name:
            raise UserError(f"engine name {name} is not a file name: leave out the slash")
    for _, mode, _, _ in wanted:
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown: choose from {', '.join(MODES)}")


def _options(args: argparse.Namespace) -> BuildOptions:
    if (args.min_shapes or args.max_shapes) and not args.shapes:
        raise UserError("--min-shapes and --max-shapes need --shapes, the shape to time: add it")
    return BuildOptions(
        "fp16",
        batch=args.batch,
        shapes=parse_shapes(args.shapes, "--shapes") if args.shapes else None,
        min_shapes=parse_shapes(args.min_shapes, "--min-shapes") if args.min_shapes else None,
        max_shapes=parse_shapes(args.max_shapes, "--max-shapes") if args.max_shapes else None,
        workspace=args.workspace,
        opt_level=args.opt_level,
        tactics=parse_tactics(args.tactics) if args.tactics else None,
        tf32=not args.no_tf32,
        strongly_typed=args.strongly_typed,
        timing_cache=args.timing_cache,
    )


def _expand(pattern: str | None, flag: str, name: str, names: Sequence[str]) -> str | None:
    """Put the engine's name into an output file's."""
    if pattern is not None and len(names) > 1 and "{name}" not in pattern:
        raise UserError(f"{flag} {pattern} is one file for {len(names)} engines: put {{name}} into it")
    return None if pattern is None else pattern.replace("{name}", name)


def choose_reference(specs: Sequence[EngineSpec], asked: str | None) -> str:
    """The engine that ratios are taken to.

    Raises:
        UserError: the one asked for does not exist.
    """
    names = [spec.name for spec in specs]
    if asked is not None and asked not in names:
        raise UserError(f"--reference {asked} is no engine: choose from {', '.join(names)}")
    return asked or next((spec.name for spec in specs if spec.mode == "ptq"), names[0])
