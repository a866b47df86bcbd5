"""Command line of bench-engine.py: arguments to engines, and the report to a table and a JSON file."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Mapping, Optional, Sequence

from quantization.closing import Closing, closing_text, command_line
from quantization.engine import bench, trtexec, trtexec_bench, versions
from quantization.engine.arguments import parser
from quantization.engine.bench_report import bench_table, problem_lines
from quantization.engine.calibration_images import calibration_images
from quantization.engine.cli_tune import MakeMeter, tune_command
from quantization.engine.combinations import check_combinations, check_engine_files
from quantization.engine.named_engines import choose_reference, make_specs
from quantization.engine.specs import BenchReport, EngineSpec
from quantization.engine.timing import TimingOptions
from quantization.engine.timing_cache import TimingCache
from quantization.files import write_json
from quantization.onnx_graph.origin import file_origin
from quantization.tables import table_text

MakeCheck = Callable[[Optional[str], bool], bench.Check]  # of --check-images and --locate


def main(
    argv: Sequence[str] | None = None,
    timings: TimingCache | None = None,
    make_check: MakeCheck | None = None,
    make_meter: MakeMeter | None = None,
) -> int:
    """Run the command line.

    Args:
        argv: None: the process's own.
        timings: shared by several calls in one process; None: --timing-cache's, or an empty one.
        make_check: makes what compares engines with their ONNX, from --check-images and --locate; None: they are not
            compared.
        make_meter: makes what measures their mAP, for --tune with --data.

    Returns:
        The exit code: 1 if an engine failed, or its boxes are wrong.
    """
    args = parser().parse_args(argv)
    return _bench(args, timings, make_check) if args.tune is None else tune_command(args, timings, make_meter)


def _bench(args: argparse.Namespace, timings: TimingCache | None, make_check: MakeCheck | None) -> int:
    """All but --tune; see ``main``."""
    specs = make_specs(args)
    reference = choose_reference(specs, args.reference)
    timed = TimingOptions(args.duration, args.warmup, args.rounds, args.cuda_graph, args.spin_wait)
    check_combinations(args, specs)
    if args.dry_run:
        _show_lines(specs, timed, _dry_version(args.trt_version))
        return 0
    check_engine_files(args, specs)
    if args.use_trtexec:
        program = trtexec.find_trtexec()
        asked = BenchReport(specs, timed, reference, trtexec.trtexec_version(program), args.build_only)
        report = trtexec_bench.run_trtexec_bench(asked, program)
    else:
        version = versions.installed_version()
        versions.logger().verbose = args.verbose
        calibration = calibration_images(args.calib_images, args.calib_count)
        asked = BenchReport(specs, timed, reference, version, args.build_only)
        check = None if make_check is None else make_check(args.check_images, args.locate)
        report = bench.run_bench(asked, calibration, timings or TimingCache(args.timing_cache), check)
    _tell(report, specs, args)
    return int(any("problem" in it or it.get("boxes", {}).get("are_wrong") for it in report["engines"]))


def _dry_version(asked: str | None) -> versions.Version:
    """The TensorRT that ``--dry-run`` writes lines for: the installed one, where none is named."""
    if asked is None:
        return versions.installed_version()
    return versions.asked_version(asked, "--trt-version")


def _show_lines(specs: Sequence[EngineSpec], timed: TimingOptions, version: versions.Version) -> None:
    """Print the lines of trtexec, and on stderr what has to be known of them."""
    from quantization.engine.dry_run import dry_run  # needs the package onnx, which building and timing do not

    for line, notes in dry_run(specs, timed, version):
        print(line)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def _tell(report: Mapping[str, Any], specs: Sequence[EngineSpec], args: argparse.Namespace) -> None:
    """Print the report, and write it as JSON if a file is named."""
    print(f"\n{report.get('gpu', '')}, " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()))
    print("\n".join([table_text(bench_table(report)), *problem_lines(report)]))
    failed = {engine["name"] for engine in report["engines"] if "problem" in engine}
    specs = [spec for spec in specs if spec.name not in failed]
    for engine in report["engines"]:
        if "boxes" in engine:
            print(f"{engine['name']}: {engine['boxes']['text']}")
    if args.json:
        write_json(args.json, report)
    print(closing_text(closing_of(specs, args)))


def _data_file(args: argparse.Namespace) -> str:
    """The data.yaml that the arguments name, or what stands for one."""
    named = (args.check_images, args.calib_images)
    return next((name for name in named if name and name.endswith((".yaml", ".yml"))), "YOUR_DATA.yaml")


def closing_of(specs: Sequence[EngineSpec], args: argparse.Namespace) -> Closing:
    """What was written, and what to run next with it."""
    written, following = {}, []
    data = _data_file(args)
    for spec in specs:
        kinds = ((spec.plan if spec.onnx else None, "engine"), (spec.layer_info, "its layers"), (spec.profile, "times"))
        written.update({path: f"{what} of {spec.name}" for path, what in kinds if path is not None})
        if spec.layer_info is not None:
            profile = [] if spec.profile is None else [f"--profile={spec.profile}"]
            following.append(command_line("draw-engine.py", f"--layer={spec.layer_info}", *profile))
        if spec.plan is not None:
            origin = None if spec.onnx is None else file_origin(spec.onnx)
            words = [] if origin is None else ["--nmsthres", f"{origin.iou:g}"]
            following.append(command_line("eval-engine.py", spec.plan, "--data", data, *words))
    if args.json:
        written[args.json] = "this report"
    return Closing(written=written, following=following)
