"""Command line of bench-engine.py: arguments to engines, and the report to a table and a JSON file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Callable, Iterator, Mapping, Sequence

from quantization.engine import bench, trtexec, trtexec_bench, versions
from quantization.engine.arguments import parser
from quantization.engine.bench_report import table
from quantization.engine.calibration_images import calibration_images
from quantization.engine.dry_run import dry_run
from quantization.engine.named_engines import choose_reference, make_specs
from quantization.engine.specs import BenchReport, EngineSpec
from quantization.engine.timing import TimingOptions
from quantization.engine.timing_cache import TimingCache
from quantization.errors import UserError
from quantization.files import atomic_write, check_writable


def main(
    argv: Sequence[str] | None = None,
    timings: TimingCache | None = None,
    make_check: Callable[[str | None], bench.Check] | None = None,
) -> int:
    """Run the command line.

    Args:
        argv: None: the process's own.
        timings: shared by several calls in one process; None: --timing-cache's, or an empty one.
        make_check: makes what compares engines with their ONNX, from --check-images; None: they are not compared.

    Returns:
        The exit code: 1 if an engine's boxes are wrong.
    """
    args = parser().parse_args(argv)
    specs = make_specs(args)
    reference = choose_reference(specs, args.reference)
    timed = TimingOptions(args.duration, args.warmup, args.rounds, args.cuda_graph, args.spin_wait)
    _check_combinations(args, specs)
    if args.dry_run:
        _print_lines(args.trt_version, specs, timed)
        return 0
    for flag, path in _outputs(args, specs):
        if path is not None:
            check_writable(path, flag)
    if args.use_trtexec:
        program = trtexec.find_trtexec()
        asked = BenchReport(specs, timed, reference, trtexec.trtexec_version(program), args.build_only)
        report = trtexec_bench.run_trtexec_bench(asked, program)
    else:
        version = versions.parse_version(versions.import_tensorrt().__version__)
        versions.logger().verbose = args.verbose
        calibration = calibration_images(args.calib_images, args.calib_count)
        asked = BenchReport(specs, timed, reference, version, args.build_only)
        check = None if make_check is None else make_check(args.check_images)
        report = bench.run_bench(asked, calibration, timings or TimingCache(args.timing_cache), check)
    _tell(report, args.json)
    return int(any(engine.get("boxes", {}).get("are_wrong") for engine in report["engines"]))


def _print_lines(asked: str | None, specs: Sequence[EngineSpec], timed: TimingOptions) -> None:
    """Print trtexec's command lines, for the version asked for or the installed one."""
    version = versions.parse_version(asked or versions.import_tensorrt().__version__)
    for line, notes in dry_run(specs, timed, version):
        print(line)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def _check_combinations(args: argparse.Namespace, specs: Sequence[EngineSpec]) -> None:
    """Refuse options that contradict each other."""
    if args.check_images and (args.use_trtexec or args.build_only):
        raise UserError(
            "--check-images runs the engines with TensorRT's Python package: drop it, or the option beside it"
        )
    if args.check_images and not any(spec.onnx for spec in specs):
        raise UserError("--check-images compares an engine with the ONNX that it is built from: name one, or drop it")
    if args.build_only and not args.save_engine:
        raise UserError("--build-only without --save-engine would throw the engines away: add --save-engine DIR")
    if args.trt_version and not args.dry_run:
        raise UserError("--trt-version is for --dry-run; otherwise the installed TensorRT's version counts: drop it")
    if args.use_trtexec and not args.dry_run and args.batch is not None and not args.shapes:
        raise UserError("--batch needs the input's name here: give --shapes images:BATCHx3xHEIGHTxWIDTH instead")


def _outputs(args: argparse.Namespace, specs: Sequence[EngineSpec]) -> Iterator[tuple[str, str | None]]:
    """Every file to be written, with the option that names it."""
    yield "--json", args.json
    yield "--timing-cache", args.timing_cache
    for spec in specs:
        yield "--export-layer-info", spec.layer_info
        yield "--export-profile", spec.profile
        yield "--calib-cache", spec.options.calib_cache
        yield "--save-engine", spec.plan if spec.onnx else None


def _tell(report: Mapping[str, Any], file: str | None) -> None:
    """Print the report, and write it as JSON if a file is named."""
    print(f"\n{report.get('gpu', '')}, " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()))
    print(table(report))
    for engine in report["engines"]:
        if "boxes" in engine:
            print(f"{engine['name']}: {engine['boxes']['text']}")
    if file:
        with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8") as stream:
            json.dump(report, stream, indent=1)
        print(f"report: {file}")
