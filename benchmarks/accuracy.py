"""What quantization costs in mAP: upstream's nets trained on drawn shapes, quantized in every way, in every runtime.

For each model and seed: draw data, train with upstream's own train.py, then evaluate by pycocotools the float model,
PTQ with each calibrator, PTQ calibrated on upstream's augmented mosaics (as the published tool does), QAT by one or
several recipes, and any other bundle with the published command line, in torch (fake quant), ONNX Runtime and TensorRT.

    python benchmarks/accuracy.py --work DIR [OPTIONS]

A second call with the same options goes on where the first one was stopped, a half-done training included; a changed
option of quantize repeats what depends on it; another training or other data need another --work. Changed code is not
noticed: remove DIR/results. Copying DIR/train/*/float.pt and DIR/results takes the work to another machine (data are
drawn again, the same).

On one of two H100 with 32 cores, six nets side by side: 350 s to train 16 epochs, 230 s for 18 QATs of 3 epochs with their
evaluation in torch, 230 s to build three engines (the first one takes 150 s). Start the work apart from the shell, look at
its log until it says "all done", start it again if it was stopped before, then the next one:

    run() { setsid nohup python benchmarks/accuracy.py --work /tmp/accuracy --models yolov5s yolov7-tiny --seeds 0 1 2 \
        --imgsz 320 --images 4000 --epochs 16 --batch-size 64 --loader-workers 5 --qat-epochs 3 --qat-iters 100 \
        --variant published="--task-weight 0 --loss mse --schedule steps --lr 1e-5" --variant lsq="--learn-scales" \
        --bundle peer=/path/to/bundle --bundle-options peer="--imgsz 320" "$@" >/tmp/accuracy.log 2>&1 & }
    run --jobs 6 --stages train
    run --jobs 12 --stages quantize report
    # engines, one after another; PYTHON has TensorRT, OpenCV and pycocotools, no torch
    run --jobs 8 --stages engines report --tensorrt-python PYTHON \
        --tensorrt-options="--opt-level 1 --no-tf32 --tactics 'EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS'"

Whether the data are hard enough (float mAP between 0.5 and 0.8: --difficulty, --classes, --largest) shows one seed in
another --work, with --methods mse --mosaic-images 0 --qat-epochs 0. The options that name runs (--methods, --variant,
--bundle ...) belong into every call, the report's too. A bundle without an option for the image size calibrates at the
published 640: compare at --imgsz 640 then.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Sequence

from accuracy_jobs import ROOT, StepFailed, Workshop, read_json, write_json
from accuracy_plan import MODELS, Experiment, Run, make_checkouts, make_data, make_mosaics, runs
from accuracy_report import machine, report

from quantization.calibration.histograms import METHODS
from quantization.errors import UserError, run_main

STAGES = ("train", "quantize", "engines", "report")
SETTINGS = (
    "images",
    "val_images",
    "test_images",
    "imgsz",
    "draw_size",
    "classes",
    "objects",
    "difficulty",
    "largest",
    "epochs",
    "batch_size",
    "lr",
    "mosaic",
)  # they decide on data and training


def named(text: str) -> tuple[str, str]:
    """argparse type: NAME=TEXT, the name fit for a file."""
    name, equals, value = text.partition("=")
    if not equals or not name.replace("-", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=..., the name of letters, digits, - and _")
    return name, value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="data, checkouts, models, figures")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=list(STAGES),
        help="default: all; engines needs --tensorrt-python",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "accuracy", metavar="DIR")
    parser.add_argument("--name", default="accuracy", help="of the report's files (default: %(default)s)")
    parser.add_argument("--device", help="cpu, 0 ...; default: each script's own choice")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: %(default)s)")
    group = parser.add_argument_group("data and training")
    group.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["yolov5s", "yolov7-tiny"])
    group.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    group.add_argument("--images", type=int, default=4000, help="to train on (default: %(default)s)")
    group.add_argument("--val-images", type=int, default=200, help="QAT's epoch is chosen by (default: %(default)s)")
    group.add_argument("--test-images", type=int, default=500, help="figures come from (default: %(default)s)")
    group.add_argument("--imgsz", type=int, default=320, help="of the networks (default: %(default)s)")
    group.add_argument("--draw-size", type=int, help="long side of the drawn images (default: 1.25 times --imgsz)")
    group.add_argument("--classes", type=int, default=30, help="(default: %(default)s)")
    group.add_argument("--objects", type=int, default=10, help="mean objects an image (default: %(default)s)")
    group.add_argument("--difficulty", type=float, default=0.7, help="0 to 1 (default: %(default)s)")
    group.add_argument(
        "--largest",
        type=float,
        default=0.35,
        help="diameter of the largest objects, of the image (default: %(default)s)",
    )
    group.add_argument("--epochs", type=int, default=30, help="2 or more (default: %(default)s)")
    group.add_argument("--batch-size", type=int, default=64, help="of the training (default: %(default)s)")
    group.add_argument("--lr", type=float, default=0.004, help="highest learning rate (default: %(default)s)")
    group.add_argument("--mosaic", type=float, default=0.0, help="share of mosaics in training (default: %(default)s)")
    group.add_argument("--loader-workers", type=int, default=4, help="of train.py (default: %(default)s)")
    group = parser.add_argument_group("quantization")
    group.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        help="calibrators; the first one is QAT's too (default: all)",
    )
    group.add_argument(
        "--mosaic-images",
        type=int,
        default=500,
        help="augmented images to choose calibration images from; 0: none (default: %(default)s)",
    )
    group.add_argument("--quantize-options", default="", metavar="TEXT", help="more options of every quantize")
    group.add_argument("--qat-epochs", type=int, default=5, help="0: no QAT (default: %(default)s)")
    group.add_argument("--qat-iters", type=int, default=100, help="steps an epoch (default: %(default)s)")
    group.add_argument("--qat-options", default="", metavar="TEXT", help="more options of every QAT")
    group.add_argument(
        "--variant",
        action="append",
        type=named,
        default=[],
        metavar="NAME=TEXT",
        help="a further QAT with these options; can be repeated",
    )
    group.add_argument(
        "--runtimes",
        nargs="+",
        choices=("torch", "onnxruntime"),
        default=["torch", "onnxruntime"],
        help="where the stage quantize evaluates (default: both)",
    )
    group.add_argument("--test-batch", type=int, default=32, help="images a batch in evaluation (default: %(default)s)")
    group = parser.add_argument_group("other bundles")
    group.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="folder with quantization/ and scripts/, run by the published commands; can be repeated",
    )
    group.add_argument(
        "--bundle-options",
        action="append",
        type=named,
        default=[],
        metavar="NAME=TEXT",
        help="more options of that bundle's quantize",
    )
    group = parser.add_argument_group("TensorRT")
    group.add_argument("--tensorrt-python", metavar="PYTHON", help="a Python that has TensorRT; it needs no torch")
    group.add_argument("--tensorrt-options", default="", metavar="TEXT", help="more options of bench-engine.py")
    group.add_argument(
        "--tensorrt-runs",
        nargs="+",
        metavar="RUN",
        help="default: float, the first calibrator, qat and its variants, other bundles",
    )
    group.add_argument("--tensorrt-batch", type=int, default=16, help="of the engines (default: %(default)s)")
    return parser


def check(options: argparse.Namespace) -> None:
    """Complete the options.

    Raises:
        UserError: they are not consistent, or a bundle is none.
    """
    options.work, options.out = options.work.resolve(), options.out.resolve()
    options.draw_size = options.draw_size or options.imgsz * 5 // 4
    if options.epochs < 2 or options.jobs < 1 or options.imgsz % 32 or options.qat_epochs < 0:
        raise UserError("--epochs must be at least 2, --jobs 1, --qat-epochs 0, and --imgsz a multiple of 32")
    bundles: dict[str, Path] = {}
    for text in options.bundle:
        name, _equals, folder = text.rpartition("=")
        path = Path(folder).resolve()
        name = name or path.name
        if not (path / "quantization").is_dir() or not (path / "scripts").is_dir():
            raise UserError(f"--bundle {text}: {folder} has no quantization/ and scripts/: name the folder with both")
        bundles[name] = path
    if len(bundles) < len(options.bundle):
        raise UserError("two bundles have one name: give --bundle NAME=DIR")
    if len(dict(options.variant)) < len(options.variant):
        raise UserError("two --variant have one name: rename one")
    options.bundle, options.variant = bundles, dict(options.variant)
    options.bundle_options = dict(options.bundle_options)
    for name in options.bundle_options:
        if name not in bundles:
            raise UserError(f"--bundle-options {name}=...: there is no --bundle {name}")
    names = [run.name for run in runs(options)]
    if len(set(names)) < len(names):
        raise UserError(f"two runs have one name ({', '.join(names)}): rename a --variant or --bundle")
    unknown = sorted(set(options.tensorrt_runs or ()) - set(names))
    if unknown:
        raise UserError(f"--tensorrt-runs {unknown[0]} is none of {', '.join(names)}")


def check_settings(options: argparse.Namespace) -> dict[str, object]:
    """What data and training depend on; the same in every call for a work folder.

    Raises:
        UserError: an earlier call had others.
    """
    settings = {name: getattr(options, name) for name in SETTINGS}
    before = read_json(options.work / "settings.json", settings)
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"{options.work} was made with --{name.replace('_', '-')} {before.get(name)}, not {value}: "
                "use that, or another --work"
            )
    write_json(options.work / "settings.json", settings)
    return settings


def engine_runs(options: argparse.Namespace) -> list[Run]:
    """The runs that engines are built of."""
    others = [
        run for run in runs(options) if not run.bundle and not run.qat and run.name not in ("float", options.methods[0])
    ]
    return [
        run
        for run in runs(options)
        if (run.name in options.tensorrt_runs if options.tensorrt_runs else run not in others)
    ]


def build_engines(options: argparse.Namespace, experiments: Sequence[Experiment], shop: Workshop) -> list[str]:
    """Build engines, one after another, and evaluate them.

    All engines of one bundle are built in one process: it loads TensorRT's kernels once and shares a timing cache, and
    what TensorRT refuses of another bundle stops none of ours.

    Returns:
        Names of those that failed.
    """
    failed: list[str] = []
    plans = options.work / "plans"
    for bundle in ("", *options.bundle):
        group = [
            (one, run, one.job(run)) for run in engine_runs(options) if run.bundle == bundle for one in experiments
        ]
        failed += shop.side_by_side({job.name: lambda job=job: shop.run_job(job, {"export"}) for _, _, job in group})
        group = [
            (one, run, job)
            for one, run, job in group
            if job.name not in failed and shop.steps_to_run(job, {"tensorrt"})
        ]
        if not group:
            continue
        name = bundle or "own"
        words = [
            options.tensorrt_python,
            str(ROOT / "scripts" / "bench-engine.py"),
            "--build-only",
            "--save-engine",
            str(plans),
            "--batch",
            str(options.tensorrt_batch),
            "--json",
            str(plans / f"{name}.json"),
            *shlex.split(options.tensorrt_options),
        ]
        for one, run, _ in group:
            mode = "fp16" if run.name == "float" else "qat"
            words += ["--engine", f"{one.name}-{run.name}={mode}:{one.folder / run.name / 'model.onnx'}"]
        try:
            seconds = shop.command(words, ROOT, plans / f"{name}-log.txt")
            print(f"{time.strftime('%H:%M:%S')} {name}: {len(group)} engines, {seconds:.0f} s", flush=True)
        except StepFailed as error:  # the evaluation says which plans are missing
            print(f"{name}: building engines failed: {error}", file=sys.stderr, flush=True)
        failed += shop.side_by_side({job.name: lambda job=job: shop.run_job(job, {"tensorrt"}) for _, _, job in group})
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; the exit code: 1 where something failed (the report says what)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(arguments)
    check(options)
    experiments = [Experiment(options, model, seed) for model in options.models for seed in options.seeds]
    failed: list[str] = []
    with Workshop(options.work, options.jobs, max(1, len(os.sched_getaffinity(0)) // options.jobs)) as shop:
        settings = check_settings(options)
        calls = read_json(options.work / "calls.json", [])
        command = shlex.join(["python", "benchmarks/accuracy.py", *arguments])
        write_json(
            options.work / "calls.json",
            [call for call in calls if call["command"] != command]
            + [{"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine()}],
        )
        if set(options.stages) & {"train", "quantize"}:
            make_data(options, options.seeds)
        if set(options.stages) - {"report"}:
            make_checkouts(options, experiments)
        if "train" in options.stages:
            failed += shop.side_by_side({one.name: lambda one=one: one.train(shop) for one in experiments})
        if "quantize" in options.stages:
            if options.mosaic_images:
                failed += make_mosaics(experiments, shop)
            work = {}
            for one in experiments:
                for run in runs(options):
                    job = one.job(run)
                    work[job.name] = lambda job=job: shop.run_job(job, set(options.runtimes))
            failed += shop.side_by_side(work)
        if "engines" in options.stages and options.tensorrt_python:
            failed += build_engines(options, experiments, shop)
        if "report" in options.stages:
            report(options, experiments, runs(options), settings)
    print("all done" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
