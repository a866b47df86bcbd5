r"""What quantization costs in mAP: upstream's networks trained on drawn shapes, quantized in every way, in every runtime.

For each model and seed: draw data, train with upstream's own train.py, then evaluate by pycocotools the float model,
PTQ with each calibrator, PTQ calibrated on upstream's augmented mosaics (as the published tool does), QAT by one or
several recipes, and any other bundle with the published command line, in torch (fake quant), ONNX Runtime and TensorRT.

    python benchmarks/accuracy.py --work DIR [OPTIONS]

A second call with the same options continues where the first one stopped, in the middle of a training too; a changed
option of quantize repeats what depends on it; another training or other data need another --work. Changed code is not
noticed: remove DIR/results. To move the work to another machine, copy DIR/train/*/float.pt and DIR/results (the same data
are drawn again there).

On one of two H100 with 32 cores, six networks side by side: 350 s to train 16 epochs, 230 s for 18 QATs of 3 epochs with
their evaluation in torch, 230 s to build three engines (150 s of them for the first). Start each stage in the background,
watch its log until it says "all done" (restart it if it was stopped), then start the next:

    run() { setsid nohup python benchmarks/accuracy.py --work /tmp/accuracy --models yolov5s yolov7-tiny --seeds 0 1 2 \
        --imgsz 320 --images 4000 --epochs 16 --batch-size 64 --loader-workers 5 --qat-epochs 3 --qat-iters 100 \
        --variant published="--task-weight 0 --loss mse --schedule steps --lr 1e-5" --variant lsq="--learn-scales" \
        --bundle peer=/path/to/bundle --bundle-options peer="--imgsz 320" "$@" >/tmp/accuracy.log 2>&1 & }
    run --jobs 6 --stages train
    run --jobs 12 --stages quantize report
    # engines, one after another; PYTHON has TensorRT, OpenCV and pycocotools, no torch
    run --jobs 8 --stages engines report --tensorrt-python PYTHON \
        --tensorrt-options="--opt-level 1 --no-tf32 --tactics 'EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS'"

One seed in another --work shows whether the data are hard enough (float mAP between 0.5 and 0.8: --difficulty, --classes,
--largest), with --methods mse --mosaic-images 0 --qat-epochs 0. The options that name runs (--methods, --variant,
--bundle ...) belong into every call, the report's too. A bundle without an option for the image size calibrates at the
published 640: compare at --imgsz 640 then.
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Sequence

from accuracy_data import make_checkouts, make_data, make_mosaics
from accuracy_jobs import StepFailed, Workshop, read_json, write_json
from accuracy_options import build_parser, check, check_settings
from accuracy_plan import Experiment, Run, runs
from accuracy_report import machine, report
from bundle import BUNDLE
from command_lines import flagged

from quantization.errors import run_main


def engine_runs(options: argparse.Namespace) -> list[Run]:
    """The runs for which engines are built."""
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

    One process builds all engines of a bundle: it loads TensorRT's kernels once and shares a timing cache. What TensorRT
    rejects in another bundle stops none of ours.

    Returns:
        Names of those that failed.
    """
    failed: list[str] = []
    for bundle in ("", *options.bundle):
        selected = [run for run in engine_runs(options) if run.bundle == bundle]
        jobs = {job.name: (one, run, job) for run in selected for one in experiments for job in [one.job(run)]}
        failed += shop.side_by_side(
            {name: functools.partial(shop.run_job, job, {"export"}) for name, (_, _, job) in jobs.items()}
        )
        jobs = {
            name: (one, run, job)
            for name, (one, run, job) in jobs.items()
            if name not in failed and shop.steps_to_run(job, {"tensorrt"})
        }
        if jobs:
            build_plans(options, bundle or "own", [(one, run) for one, run, _ in jobs.values()], shop)
        failed += shop.side_by_side(
            {name: functools.partial(shop.run_job, job, {"tensorrt"}) for name, (_, _, job) in jobs.items()}
        )
    return failed


def build_plans(
    options: argparse.Namespace, bundle: str, engines: Sequence[tuple[Experiment, Run]], shop: Workshop
) -> None:
    """Build the plans of one bundle's engines in one process; the evaluation says which ones are missing."""
    plans = options.work / "plans"
    flags: dict[str, object] = {
        "--build-only": None,
        "--save-engine": plans,
        "--batch": options.tensorrt_batch,
        "--json": plans / f"{bundle}.json",
    }
    words = [options.tensorrt_python, str(BUNDLE / "scripts" / "bench-engine.py"), *flagged(flags)]
    words += shlex.split(options.tensorrt_options)
    for one, run in engines:
        mode = "fp16" if run.name == "float" else "qat"
        words += ["--engine", f"{one.name}-{run.name}={mode}:{one.files(run) / 'model.onnx'}"]
    try:
        seconds = shop.command(words, BUNDLE, plans / f"{bundle}-log.txt")
        print(f"{time.strftime('%H:%M:%S')} {bundle}: {len(engines)} engines, {seconds:.0f} s", flush=True)
    except StepFailed as error:
        print(f"{bundle}: building engines failed: {error}", file=sys.stderr, flush=True)


def note_call(work: Path, arguments: Sequence[str]) -> None:
    """Add this call to those that the report lists."""
    calls = read_json(work / "calls.json", [])
    command = shlex.join(["python", "benchmarks/accuracy.py", *arguments])
    others = [call for call in calls if call["command"] != command]
    here = {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
    write_json(work / "calls.json", [*others, here])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages. The exit code is 1 if something failed; the report says what."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser(__doc__).parse_args(arguments)
    check(options)
    experiments = [Experiment(options, model, seed) for model in options.models for seed in options.seeds]
    failed: list[str] = []
    with Workshop(options.work, options.jobs, max(1, len(os.sched_getaffinity(0)) // options.jobs)) as shop:
        settings = check_settings(options)
        note_call(options.work, arguments)
        if set(options.stages) & {"train", "quantize"}:
            make_data(options, options.seeds)
        if set(options.stages) - {"report"}:
            make_checkouts(options, experiments)
        if "train" in options.stages:
            failed += shop.side_by_side({one.name: functools.partial(one.train, shop) for one in experiments})
        if "quantize" in options.stages:
            if options.mosaic_images:
                failed += make_mosaics(experiments, shop)
            jobs = [one.job(run) for one in experiments for run in runs(options)]
            runtimes = set(options.runtimes)
            failed += shop.side_by_side({job.name: functools.partial(shop.run_job, job, runtimes) for job in jobs})
        if "engines" in options.stages and options.tensorrt_python:
            failed += build_engines(options, experiments, shop)
        if "report" in options.stages:
            report(options, experiments, runs(options), settings)
    print("all done" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
