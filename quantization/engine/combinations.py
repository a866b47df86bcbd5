"""Arguments of bench-engine.py that contradict each other, have no effect, or name files that cannot be used."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Iterable, Iterator, Sequence

from quantization.engine.arguments import parser
from quantization.engine.specs import EngineSpec
from quantization.errors import UserError
from quantization.files import check_named_files
from quantization.option_fields import refuse_unused

BUILD = (
    "min_shapes",
    "max_shapes",
    "workspace",
    "opt_level",
    "tactics",
    "no_tf32",
    "strongly_typed",
    "timing_cache",
    "save_engine",
    "build_only",
)
CALIBRATION = ("calib_images", "calib_count", "calib_cache")
TIMING = ("duration", "rounds", "warmup", "cuda_graph", "spin_wait", "reference", "export_layer_info", "export_profile")


def check_combinations(args: argparse.Namespace, specs: Sequence[EngineSpec]) -> None:
    """Check what the arguments say of each other.

    Raises:
        UserError: they contradict each other, or some would have no effect.
    """
    if args.data is not None or args.max_drop is not None:
        raise UserError("--data and --max-drop are for --tune: add --tune DIR, or see eval-engine.py")
    if args.check_images and (args.use_trtexec or args.build_only):
        raise UserError(
            "--check-images runs the engines with TensorRT's Python package: drop it, or the option beside it"
        )
    if args.check_images and not any(spec.onnx for spec in specs):
        raise UserError("--check-images compares an engine with the ONNX that it is built from: name one, or drop it")
    if not args.check_images:
        refuse_unused(_given(args, ("locate",)), "--check-images")
    if args.build_only and not args.save_engine:
        raise UserError("--build-only without --save-engine would throw the engines away: add --save-engine DIR")
    if args.trt_version and not args.dry_run:
        raise UserError("--trt-version is for --dry-run; otherwise the installed TensorRT's version counts: drop it")
    if args.use_trtexec and not args.dry_run and args.batch is not None and not args.shapes:
        raise UserError("--batch needs the input's name here: give --shapes images:BATCHx3xHEIGHTxWIDTH instead")
    if not any(spec.onnx for spec in specs):
        refuse_unused(_given(args, BUILD), "an ONNX to build from")
    if not any(spec.onnx and spec.mode == "ptq" for spec in specs):
        refuse_unused(_given(args, CALIBRATION), "mode ptq")
    if args.calib_images is None:
        refuse_unused(_given(args, ("calib_count",)), "--calib-images")
    if args.build_only:
        refuse_unused(_given(args, TIMING), "timing, which --build-only leaves out")
    if args.use_trtexec:
        refuse_unused(_given(args, ("calib_images", "verbose")), "TensorRT's Python package (drop --use-trtexec)")
    if args.dry_run:
        refuse_unused(_given(args, ("json", "check_images", "verbose")), "a run, which --dry-run leaves out")


def check_engine_files(
    args: argparse.Namespace, specs: Sequence[EngineSpec], more: Iterable[tuple[str, str | None]] = ()
) -> None:
    """Refuse files that are missing or cannot be written.

    Args:
        args: of the command line.
        specs: the engines that they ask for.
        more: what is written beside that, each with the option that names it.

    Raises:
        UserError: there is one.
    """
    read = [spec.onnx or spec.plan for spec in specs]
    for spec, file in zip(specs, read):
        if file is None or not Path(file).is_file():
            raise UserError(f"{file} does not exist: name {'an ONNX file' if spec.onnx else 'a plan file'}")
    # trtexec makes no folders
    check_named_files([*read, args.calib_images, args.data], [*_outputs(args, specs), *more], make_folders=True)


def _outputs(args: argparse.Namespace, specs: Sequence[EngineSpec]) -> Iterator[tuple[str, str | None]]:
    """Every file to be written, with the option that names it."""
    yield "--json", args.json
    yield "--timing-cache", args.timing_cache
    for spec in specs:
        yield "--export-layer-info", spec.layer_info
        yield "--export-profile", spec.profile
        yield "--calib-cache", spec.options.calib_cache
        yield "--save-engine", spec.plan if spec.onnx else None


def _given(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Flags of the arguments that have other values than their defaults."""
    found = []
    for name in names:
        value = getattr(args, name)
        if value != parser().get_default(name):
            flag = name.replace("_", "-")
            found.append(f"--no-{flag}" if value is False else f"--{flag}")
    return found
