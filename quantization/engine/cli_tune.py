"""bench-engine.py --tune: arguments to what is tuned, and the report to a table and the commands to reuse."""

from __future__ import annotations

import argparse
import os
from typing import Any, Callable, Mapping, Sequence

from quantization.closing import Closing, closing_text
from quantization.engine import versions
from quantization.engine.arguments import MAX_DROP
from quantization.engine.calibration_images import calibration_images
from quantization.engine.combinations import check_engine_files
from quantization.engine.named_engines import Wanted, make_specs
from quantization.engine.specs import EngineSpec, check_spec
from quantization.engine.survivors import ending_lines
from quantization.engine.timing import TimingOptions
from quantization.engine.timing_cache import TimingCache
from quantization.engine.tune import REFERENCE, AccuracyMeter, TuneRequest, run_tune
from quantization.engine.tune_record import RECORD_FILE
from quantization.engine.tune_report import choose_engine, reuse_lines, tune_table, verdict_lines
from quantization.engine.variant_folder import VariantFolder, read_variant_folder
from quantization.errors import UserError
from quantization.files import write_json
from quantization.locks import OutputLocks
from quantization.signals import SIGNALS
from quantization.tables import table_text

PLANS = "plans"  # subfolder
SAMPLES = f"{REFERENCE}.npz"  # in it: what the reference found, for differences
# of the network, data.yaml, file for the reference's samples
MakeMeter = Callable[[VariantFolder, str, str], AccuracyMeter]


def tune_command(args: argparse.Namespace, timings: TimingCache | None, make_meter: MakeMeter | None) -> int:
    """Tune as the arguments ask; the exit code: 1 if an engine failed.

    Raises:
        UserError: the arguments contradict each other, the folder, images or data set cannot be used, or another process
            tunes in the folder.
    """
    _check_arguments(args)
    folder = read_variant_folder(args.tune)
    args.save_engine = os.path.join(args.tune, PLANS)
    specs = make_specs(args, _wanted(folder, args.tune))
    version = versions.installed_version()
    versions.logger().verbose = args.verbose
    record = os.path.join(args.tune, RECORD_FILE)
    check_engine_files(args, specs, [("--tune", record)])
    with OutputLocks([record]):
        calibration = calibration_images(args.calib_images or args.data, args.calib_count)
        skipped = _skipped(specs, version, calibration is not None)
        meter = None
        if args.data is not None:
            if make_meter is None:
                raise UserError("--data needs what evaluates engines: run scripts/bench-engine.py")
            meter = make_meter(folder, args.data, os.path.join(args.save_engine, SAMPLES))
        timed = TimingOptions(args.duration, args.warmup, args.rounds, args.cuda_graph, args.spin_wait)
        kept = [spec for spec in specs if spec.name not in skipped]
        SIGNALS.hint = ": the same command goes on"
        report = run_tune(
            TuneRequest(args.tune, kept, skipped, timed, version),
            calibration,
            timings or TimingCache(args.timing_cache),
            meter,
        )
    _tell(report, folder, args)
    failed = (engine for engine in report["engines"] if engine["name"] not in skipped)
    return int(any("problem" in engine or "unmeasured" in engine for engine in failed))


def _check_arguments(args: argparse.Namespace) -> None:
    given = {
        "an ONNX": args.onnx,
        "--modes": args.modes,
        "--save-engine": args.save_engine,
        "--build-only": args.build_only,
        "--reference": args.reference,
        "--use-trtexec": args.use_trtexec,
        "--check-images": args.check_images,
        "--locate": args.locate,
        "--dry-run": args.dry_run,
        "--trt-version": args.trt_version,
        "--export-layer-info": args.export_layer_info,
        "--export-profile": args.export_profile,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UserError(f"--tune builds what export --variants wrote, without {wrong}: leave it out")


def _wanted(folder: VariantFolder, path: str) -> list[Wanted]:
    """FP16, implicit PTQ and each variant."""
    files = {variant.name: os.path.join(path, variant.file) for variant in folder.variants}
    first, *others = files.items()
    return [
        (REFERENCE, "fp16", first[1], None),
        ("ptq", "ptq", first[1], None),
        *((name, "qat", file, None) for name, file in others),
    ]


def _skipped(specs: Sequence[EngineSpec], version: versions.Version, has_images: bool) -> dict[str, str]:
    """Names of the engines of implicit PTQ that cannot be built here, and why.

    Raises:
        UserError: another engine cannot.
    """
    reasons = {}
    for spec in specs:
        try:
            check_spec(spec, version, has_images)
        except UserError as error:
            if spec.mode != "ptq":
                raise
            reasons[spec.name] = str(error)
    return reasons


def _tell(report: Mapping[str, Any], folder: VariantFolder, args: argparse.Namespace) -> None:
    """Print the table and what follows from it, and write it as JSON if a file is named."""
    max_drop = MAX_DROP if args.max_drop is None else args.max_drop
    engines = report["engines"]
    chosen = choose_engine(engines, max_drop)
    print(f"\n{report['gpu']}, " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()))
    print(table_text(tune_table(engines)))
    ending = ending_lines(report, f"the same command goes on without {report.get('ended_by')}")
    print("\n".join([*verdict_lines(engines, max_drop), *ending]))
    if args.json is not None:
        write_json(args.json, {**report, "chosen": None if chosen is None else chosen["name"], "max_drop": max_drop})
    written = {os.path.join(args.tune, RECORD_FILE): "what was measured", args.save_engine: "the plans"}
    if args.json is not None:
        written[args.json] = "this report"
    following = [] if chosen is None else reuse_lines(chosen, folder)
    print(closing_text(Closing(written=written, following=following)))
