"""Command line of bench-engine.py: arguments to engines, and the report to a table and a JSON file."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import shlex
from typing import Callable, Iterator, Sequence

import numpy as np

from quantization.engine import bench, trtexec, versions
from quantization.engine.options import MODES, BuildOptions, Shape, parse_shapes, parse_tactics
from quantization.engine.timing_cache import TimingCache
from quantization.errors import UserError
from quantization.files import atomic_write, check_writable

EPILOG = """examples:
  bench-engine.py float.onnx --modes fp16,ptq --calib-images coco/val2017 --calib-cache float.calib --save-engine plans
  bench-engine.py float.onnx --modes fp16,ptq --engine no-rule=qat:no-rule.onnx --engine rule=qat:rule.onnx --batch 16
  bench-engine.py --load-engine plans/ptq.plan --load-engine rule=plans/rule.plan --export-profile {name}-profile.json
  bench-engine.py rule.onnx --modes qat --dry-run --trt-version 10.3
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    cli = argparse.ArgumentParser(
        prog="bench-engine.py",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Build TensorRT engines from ONNX and time them against each other in one interleaved run.",
    )
    which = cli.add_argument_group("engines")
    which.add_argument("onnx", nargs="?", help="ONNX to build in each of --modes")
    which.add_argument("--modes", default=None, help="fp16 (default), ptq, qat: a comma between several")
    which.add_argument("--engine", action="append", default=[], metavar="NAME=MODE:FILE.onnx", help="a further build")
    which.add_argument("--load-engine", action="append", default=[], metavar="[NAME=]FILE.plan", help="a plan to time")
    which.add_argument(
        "--save-engine", metavar="DIR", help="keep the plans in DIR; one that is up to date is not built again"
    )
    which.add_argument("--build-only", action="store_true", help="build and save, time nothing")
    which.add_argument(
        "--reference", metavar="NAME", help="engine that ratios are taken to (the first ptq, else the first)"
    )
    build = cli.add_argument_group("build")
    build.add_argument("--batch", type=_positive(int), help="batch size of a dynamic ONNX (default 1)")
    build.add_argument("--shapes", help="shapes of a dynamic ONNX, images:16x3x640x640")
    build.add_argument("--min-shapes", help="smallest shapes that the engine takes (default: --shapes)")
    build.add_argument("--max-shapes", help="largest shapes that the engine takes (default: --shapes)")
    build.add_argument("--workspace", type=_positive(int), metavar="MIB", help="workspace limit")
    build.add_argument("--opt-level", type=int, metavar="0-5", help="builder optimization level")
    build.add_argument("--tactics", help="the only tactic sources to use, EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS")
    build.add_argument("--no-tf32", action="store_true", help="no TF32 for FP32 layers")
    build.add_argument("--strongly-typed", action="store_true", help="strongly typed network (10.x; always from 11)")
    build.add_argument("--timing-cache", metavar="FILE", help="timing cache, read and written")
    build.add_argument(
        "--calib-images", metavar="DIR|LIST", help="images for mode ptq: folder, .txt, data.yaml or .npy"
    )
    build.add_argument("--calib-count", type=_positive(int), default=512, help="how many of them (default 512)")
    build.add_argument("--calib-cache", metavar="FILE", help="calibration cache: used if it exists, else written")
    build.add_argument("--verbose", action="store_true", help="show TensorRT's warnings and information")
    run = cli.add_argument_group("timing")
    run.add_argument("--duration", type=_positive(float), default=2.0, help="seconds an engine and round (default 2)")
    run.add_argument("--rounds", type=_positive(int), default=5, help="rounds, engines interleaved (default 5)")
    run.add_argument("--warmup", type=_positive(float), default=0.5, help="seconds before each (default 0.5)")
    for name, help_text in (("cuda-graph", "replay a CUDA graph"), ("spin-wait", "spin while waiting for the GPU")):
        pair = run.add_mutually_exclusive_group()
        dest = name.replace("-", "_")
        pair.add_argument(f"--{name}", dest=dest, action="store_true", default=True, help=f"{help_text} (default)")
        pair.add_argument(f"--no-{name}", dest=dest, action="store_false", help="do not")
    run.add_argument("--use-trtexec", action="store_true", help="let trtexec build and time instead")
    out = cli.add_argument_group("output")
    out.add_argument("--export-layer-info", metavar="FILE", help="layer JSON for draw-engine.py; {name}: engine")
    out.add_argument("--export-profile", metavar="FILE", help="profile JSON for draw-engine.py; {name}: engine")
    out.add_argument("--json", metavar="FILE", help="write the report")
    out.add_argument("--dry-run", action="store_true", help="print the trtexec lines and stop; needs no TensorRT")
    out.add_argument("--trt-version", metavar="X.Y", help="version for --dry-run (default: the installed one)")
    return cli


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    convert.__name__ = getattr(kind, "__name__", "number")  # argparse names the type in its message
    return convert


def make_specs(args: argparse.Namespace) -> list[bench.Spec]:
    """The engines that the arguments name.

    Raises:
        UserError: there is none, a name comes twice, or one output file would be written by several engines.
    """
    wanted: list[tuple[str, str, str | None, str | None]] = []  # name, mode, onnx, plan
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
    if not wanted:
        raise UserError("no engine named: give an ONNX file, --engine or --load-engine (see --help)")
    names = [name for name, _, _, _ in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two engines are called {name}: name them with --engine NAME=MODE:FILE.onnx")
        if os.path.basename(name) != name:
            raise UserError(f"engine name {name} is not a file name: leave out the slash")
    for _, mode, _, _ in wanted:
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown: choose from {', '.join(MODES)}")
    calibrated = [name for name, mode, onnx, _ in wanted if mode == "ptq" and onnx]
    shared = _options(args)
    specs = []
    for name, mode, onnx, plan in wanted:
        cache = _expand(args.calib_cache, "--calib-cache", name, calibrated) if name in calibrated else None
        if onnx and args.save_engine:
            suffix = "" if shared.batch is None else f"-b{shared.batch}"
            plan = os.path.join(args.save_engine, f"{name}{suffix}.plan")
        specs.append(
            bench.Spec(
                name,
                dataclasses.replace(shared, mode=mode, calib_cache=cache),
                onnx,
                plan,
                _expand(args.export_layer_info, "--export-layer-info", name, names),
                _expand(args.export_profile, "--export-profile", name, names),
            )
        )
    return specs


def _options(args: argparse.Namespace) -> BuildOptions:
    shapes = {
        flag: parse_shapes(text, "--" + flag.replace("_", "-")) if text else None
        for flag, text in (("shapes", args.shapes), ("min_shapes", args.min_shapes), ("max_shapes", args.max_shapes))
    }
    if (args.min_shapes or args.max_shapes) and not args.shapes:
        raise UserError("--min-shapes and --max-shapes need --shapes, the shape to time: add it")
    return BuildOptions(
        "fp16",
        batch=args.batch,
        workspace=args.workspace,
        opt_level=args.opt_level,
        tactics=parse_tactics(args.tactics) if args.tactics else None,
        tf32=not args.no_tf32,
        strongly_typed=args.strongly_typed,
        timing_cache=args.timing_cache,
        **shapes,
    )


def _expand(pattern: str | None, flag: str, name: str, names: Sequence[str]) -> str | None:
    """Put the engine's name into an output file's."""
    if pattern is not None and len(names) > 1 and "{name}" not in pattern:
        raise UserError(f"{flag} {pattern} is one file for {len(names)} engines: put {{name}} into it")
    return None if pattern is None else pattern.replace("{name}", name)


def choose_reference(specs: Sequence[bench.Spec], asked: str | None) -> str:
    """The engine that ratios are taken to.

    Raises:
        UserError: the one asked for does not exist.
    """
    names = [spec.name for spec in specs]
    if asked is not None and asked not in names:
        raise UserError(f"--reference {asked} is no engine: choose from {', '.join(names)}")
    return asked or next((spec.name for spec in specs if spec.mode == "ptq"), names[0])


def calibration_images(source: str | None, count: int) -> bench.Calibration | None:
    """The calibration images: ``count`` of them, spread evenly over the list or array.

    Raises:
        UserError: the source cannot be read, or OpenCV is missing.
    """
    if source is None:
        return None
    if source.endswith(".npy"):
        return _calibration_array(source, count)
    try:
        from quantization.data.dataset import image_files
        from quantization.data.images import load_batches
    except ImportError as error:
        raise UserError(
            f"--calib-images {source} needs OpenCV ({error}): pip install opencv-python-headless, or give "
            "a .npy of (N, 3, H, W) uint8"
        ) from error
    files = image_files(source)
    chosen = [files[index] for index in _spread(len(files), count)]

    def batches(shape: Shape) -> Iterator[np.ndarray]:
        return iter(load_batches(chosen, size=(shape[2], shape[3]), batch_size=shape[0]))

    return bench.Calibration(os.path.abspath(source), len(chosen), batches)


def _calibration_array(path: str, count: int) -> bench.Calibration:
    """Images (N, 3, H, W), uint8 or float32 in 0..1, for a machine without OpenCV."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"--calib-images {path} cannot be read ({error}): give a .npy of (N, 3, H, W)") from error
    if images.ndim != 4 or len(images) == 0 or images.dtype not in (np.uint8, np.float32):
        raise UserError(
            f"--calib-images {path} holds {images.dtype} {images.shape}: give (N, 3, H, W) in uint8, or in "
            "float32 from 0 to 1"
        )
    chosen = _spread(len(images), count)

    def batches(shape: Shape) -> Iterator[np.ndarray]:
        for first in range(0, len(chosen), shape[0]):
            batch = np.asarray(images[chosen[first : first + shape[0]]])
            yield batch.astype(np.float32) / 255 if batch.dtype == np.uint8 else batch

    return bench.Calibration(os.path.abspath(path), len(chosen), batches)


def _spread(total: int, count: int) -> list[int]:
    """Indices of ``count`` of ``total`` items, evenly spread."""
    return [int(index) for index in np.linspace(0, total - 1, min(count, total))]


def main(argv: Sequence[str] | None = None, timings: TimingCache | None = None) -> int:
    """Run the command line.

    Args:
        argv: None: the process's own.
        timings: shared by several calls in one process; None: --timing-cache's, or an empty one.
    """
    args = parser().parse_args(argv)
    specs = make_specs(args)
    reference = choose_reference(specs, args.reference)
    timed = trtexec.TimingOptions(args.duration, args.warmup, args.rounds, args.cuda_graph, args.spin_wait)
    if args.build_only and not args.save_engine:
        raise UserError("--build-only without --save-engine would throw the engines away: add --save-engine DIR")
    if args.trt_version and not args.dry_run:
        raise UserError("--trt-version is for --dry-run; otherwise the installed TensorRT's version counts: drop it")
    if (args.dry_run or args.use_trtexec) and args.batch is not None and not args.shapes:
        raise UserError("--batch needs the input's name here: give --shapes images:BATCHx3xHEIGHTxWIDTH instead")
    if args.dry_run:
        version = versions.parse_version(args.trt_version or versions.import_tensorrt().__version__)
        for spec in specs:
            print(shlex.join(bench.trtexec_line(spec, timed, version)))
        return 0
    for flag, path in itertools.chain(
        (("--json", args.json), ("--timing-cache", args.timing_cache)),
        *(
            (
                ("--export-layer-info", spec.layer_info),
                ("--export-profile", spec.profile),
                ("--calib-cache", spec.options.calib_cache),
                ("--save-engine", spec.plan if spec.onnx else None),
            )
            for spec in specs
        ),
    ):
        if path is not None:
            check_writable(path, flag)
    if args.use_trtexec:
        program = trtexec.find_trtexec()
        report = bench.run_with_trtexec(
            specs, timed, reference, trtexec.trtexec_version(program), program, args.build_only
        )
    else:
        version = versions.parse_version(versions.import_tensorrt().__version__)
        versions.logger().verbose = args.verbose
        calibration = calibration_images(args.calib_images, args.calib_count)
        report = bench.run(
            specs, timed, calibration, reference, version, timings or TimingCache(args.timing_cache), args.build_only
        )
    print(f"\n{report.get('gpu', '')}, " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()))
    print(bench.table(report))
    if args.json:
        with atomic_write(args.json) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
        print(f"report: {args.json}")
    return 0
