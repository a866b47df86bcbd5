"""Command line of bench-engine.py: arguments to engines, and the report to a table and a JSON file."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Iterator, Mapping, Sequence

from quantization.closing import Closing, closing_text, command_line
from quantization.engine import bench, trtexec, trtexec_bench, versions
from quantization.engine.arguments import parser
from quantization.engine.bench_report import bench_table, problem_lines
from quantization.engine.calibration_images import calibration_images
from quantization.engine.cli_tune import MakeMeter, tune_command
from quantization.engine.named_engines import choose_reference, make_specs
from quantization.engine.specs import BenchReport, EngineSpec
from quantization.engine.timing import TimingOptions
from quantization.engine.timing_cache import TimingCache
from quantization.errors import UserError
from quantization.files import check_writable, write_json
from quantization.tables import table_text


def main(
    argv: Sequence[str] | None = None,
    timings: TimingCache | None = None,
    make_check: Callable[[str | None], bench.Check] | None = None,
    make_meter: MakeMeter | None = None,
) -> int:
    """Run the command line.

    Args:
        argv: None: the process's own.
        timings: shared by several calls in one process; None: --timing-cache's, or an empty one.
        make_check: makes what compares engines with their ONNX, from --check-images; None: they are not compared.
        make_meter: makes what measures their mAP, for --tune with --data.

    Returns:
        The exit code: 1 if an engine failed, or its boxes are wrong.
    """
    args = parser().parse_args(argv)
    return _bench(args, timings, make_check) if args.tune is None else tune_command(args, timings, make_meter)


def _bench(
    args: argparse.Namespace, timings: TimingCache | None, make_check: Callable[[str | None], bench.Check] | None
) -> int:
    """All but --tune; see ``main``."""
    specs = make_specs(args)
    reference = choose_reference(specs, args.reference)
    timed = TimingOptions(args.duration, args.warmup, args.rounds, args.cuda_graph, args.spin_wait)
    _check_combinations(args, specs)
    if args.dry_run:
        _show_lines(specs, timed, args.trt_version or versions.import_tensorrt().__version__)
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
    _tell(report, specs, args.json)
    return int(any("problem" in it or it.get("boxes", {}).get("are_wrong") for it in report["engines"]))


def _show_lines(specs: Sequence[EngineSpec], timed: TimingOptions, version: str) -> None:
    """Print the lines of trtexec, and on stderr what has to be known of them."""
    from quantization.engine.dry_run import dry_run  # needs the package onnx, which building and timing do not

    for line, notes in dry_run(specs, timed, versions.parse_version(version)):
        print(line)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def _check_combinations(args: argparse.Namespace, specs: Sequence[EngineSpec]) -> None:
    """Refuse options that contradict each other."""
    if args.data is not None or args.max_drop is not None:
        raise UserError("--data and --max-drop are for --tune: add --tune DIR, or see eval-engine.py")
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


def _tell(report: Mapping[str, Any], specs: Sequence[EngineSpec], file: str | None) -> None:
    """Print the report, and write it as JSON if a file is named."""
    print(f"\n{report.get('gpu', '')}, " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()))
    print("\n".join([table_text(bench_table(report)), *problem_lines(report)]))
    failed = {engine["name"] for engine in report["engines"] if "problem" in engine}
    specs = [spec for spec in specs if spec.name not in failed]
    for engine in report["engines"]:
        if "boxes" in engine:
            print(f"{engine['name']}: {engine['boxes']['text']}")
    if file:
        write_json(file, report)
    print(closing_text(_closing(specs, file)))


def _closing(specs: Sequence[EngineSpec], file: str | None) -> Closing:
    written, following = {}, []
    for spec in specs:
        kinds = ((spec.plan if spec.onnx else None, "engine"), (spec.layer_info, "its layers"), (spec.profile, "times"))
        written.update({path: f"{what} of {spec.name}" for path, what in kinds if path is not None})
        if spec.layer_info is not None:
            profile = [] if spec.profile is None else [f"--profile={spec.profile}"]
            following.append(command_line("draw-engine.py", f"--layer={spec.layer_info}", *profile))
        if spec.plan is not None:
            following.append(command_line("eval-engine.py", spec.plan) + " --data data.yaml")
    if file:
        written[file] = "this report"
    return Closing(written=written, following=following)
