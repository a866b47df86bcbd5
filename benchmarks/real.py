r"""What quantization costs on photographs, each figure with its 95 % interval: a table for several data sets.

For each set: the float model, PTQ by each calibrator, and QAT by the recipes that are asked for, in torch and in ONNX
Runtime; differences to float in points of mAP@0.5:0.95, with classes merged and per class. Sets without a weight are
trained first, by upstream's train.py from --start until it stops early.

    python benchmarks/real.py --work DIR --sets coco128=/data/coco128_yolo corn-pests=/data/dataset-yolov5 mine=/data/mine \
        --weights coco128=/data/dataset-yolov5/yolov5/yolov5n.pt [OPTIONS]

``real_sets.py`` names the public sets that it knows; nothing is downloaded. A second call continues where the first one
stopped, and writes the table of what is done; --stages report only writes it.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from pathlib import Path
from typing import Sequence

from accuracy_jobs import Job, Step, StepFailed, Workshop
from bundle import BUNDLE
from command_lines import flagged
from real_report import write_report
from real_sets import RealSet, lay_out

from checkouts import install_bundle, make_checkout
from quantization.errors import UserError, run_main
from quantization.options import CALIBRATION_METHODS

SCRIPT = "scripts/qat-yolov5.py"
RECIPES = {
    "default": [],
    "published": ["--task-weight", "0", "--loss", "mse", "--schedule", "steps", "--lr", "1e-5"],
    "distillation": ["--task-weight", "0"],
}
STAGES = ("run", "report")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="real.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="everything goes there")
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=DIR", help="data sets, see real_sets.py")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=PT", help="float checkpoints of sets")
    parser.add_argument(
        "--start", type=Path, metavar="PT", help="checkpoint that sets without a weight are trained from"
    )
    parser.add_argument("--methods", nargs="*", default=list(CALIBRATION_METHODS), choices=CALIBRATION_METHODS)
    parser.add_argument(
        "--qat", nargs="*", default=[], choices=sorted(RECIPES), help="recipes of QAT, from the first method"
    )
    parser.add_argument("--onnxruntime", action="store_true", help="measure the exported ONNX too")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=300, help="of training, at most")
    parser.add_argument("--patience", type=int, default=30, help="epochs without progress that end the training")
    parser.add_argument("--jobs", type=int, default=1, help="commands side by side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each command")
    parser.add_argument("--out", type=Path, default=BUNDLE / "benchmarks" / "results" / "accuracy", metavar="DIR")
    parser.add_argument("--name", default="real", help="of the files in --out, without suffix")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    return parser


def pairs(entries: Sequence[str], flag: str) -> dict[str, Path]:
    """NAME=PATH words.

    Raises:
        UserError: one has no "=".
    """
    wrong = [entry for entry in entries if "=" not in entry]
    if wrong:
        raise UserError(f"{flag} {wrong[0]}: give NAME=PATH")
    return {name: Path(path).expanduser().resolve() for name, path in (entry.split("=", 1) for entry in entries)}


class Plan:
    """The commands for one data set.

    Args:
        options: of the command line.
        data: the set.
        weight: its float checkpoint, given or to be trained.
    """

    def __init__(self, options: argparse.Namespace, data: RealSet, weight: Path) -> None:
        self.options, self.set, self.weight = options, data, weight
        self.results, self.models = options.work / "results" / data.name, options.work / "models" / data.name
        self.common = [
            *("--data", str(data.data), "--imgsz", str(options.imgsz), "--device", options.device, "--workers", "1")
        ]

    def job(self, name: str, steps: Sequence[Step]) -> Job:
        """Steps of one way of quantizing; what they need of the float model is there before."""
        return Job(
            f"{self.set.name}/{name}",
            self.results / name,
            self.options.work / "logs" / f"{self.set.name}-{name}.log",
            self.options.work / "yolov5",
            list(steps),
        )

    def float_job(self) -> Job:
        """The float model, whose samples all others are compared with."""
        return self.job("float", self._measures("float", self.weight, "--save-samples"))

    def ptq_job(self, method: str) -> Job:
        """PTQ by a calibrator."""
        model = self.models / f"{method}.pt"
        words = self._quantize(method, "--ptq", str(model))
        return self.job(f"ptq-{method}", [Step("quantize", words, model), *self._measures(method, model, "--against")])

    def qat_job(self, recipe: str) -> Job:
        """PTQ by the first calibrator and QAT by a recipe."""
        name, method = f"qat-{recipe}", self.options.methods[0]
        model = self.models / f"{name}.pt"
        files = ("--ptq", str(self.models / f"{name}-ptq.pt"), "--qat", str(model), "--restart")
        words = self._quantize(method, *files, *RECIPES[recipe], name=name)
        return self.job(name, [Step("quantize", words, model), *self._measures(name, model, "--against")])

    def _quantize(self, method: str, *more: str, name: str = "") -> list[str]:
        summary = self.models / f"{name or method}-summary.json"
        words = ("quantize", str(self.weight), *more, "--calib-method", method, "--summary", str(summary))
        return [sys.executable, SCRIPT, *words, *self.common]

    def _measures(self, name: str, model: Path, samples: str) -> list[Step]:
        """Figures in torch and in ONNX Runtime, which takes squares; with the float model's ``samples``."""
        folder = self.results / (name if name == "float" or name.startswith("qat") else f"ptq-{name}")
        steps = [self._measure("torch", model, folder / "torch.json", samples)]
        if self.options.onnxruntime:
            onnx = self.models / f"{name}.onnx"
            words = [sys.executable, SCRIPT, "export", str(model), "--size", str(self.options.imgsz), "--dynamic"]
            steps.append(Step("export", [*words, "--save", str(onnx), "--device", "cpu"], onnx))
            steps.append(self._measure("onnxruntime", onnx, folder / "onnxruntime.json", samples))
        return steps

    def _measure(self, runtime: str, model: Path, output: Path, samples: str) -> Step:
        reference = self.results / "float" / f"{runtime}.npz"
        words = ["test", str(model), "--save-json", str(output), samples, str(reference)]
        return Step(runtime, [sys.executable, SCRIPT, *words, *self.common], output)


def train(options: argparse.Namespace, data: RealSet, shop: Workshop) -> Path:
    """The float checkpoint of a set that has none, trained until it stops early.

    Raises:
        UserError: --start is missing.
        StepFailed: the training failed.
    """
    weight = options.work / "train" / data.name / "weights" / "best.pt"
    done = weight.parent.parent / "done"
    if done.is_file():
        return weight
    if options.start is None:
        raise UserError(f"{data.name} has no weight: give --start, a checkpoint to train it from, or --weights")
    words = {
        "--weights": options.start.resolve(),
        "--data": data.data,
        "--imgsz": options.imgsz,
        "--epochs": options.epochs,
        "--patience": options.patience,
        "--device": options.device,
        "--project": weight.parent.parent.parent,
        "--name": data.name,
        "--exist-ok": None,
    }
    command = [sys.executable, "-m", "quantization.upstream", "train.py", *flagged(words)]
    shop.command(command, options.work / "yolov5", options.work / "logs" / f"{data.name}-train.log")
    done.touch()
    return weight


def measure(options: argparse.Namespace, sets: Sequence[RealSet], weights: dict[str, Path]) -> list[str]:
    """Run what is missing; names of the jobs that failed."""
    failed: list[str] = []
    with Workshop(options.work, options.jobs, options.threads) as shop:
        checkout = options.work / "yolov5"
        shutil.rmtree(checkout, ignore_errors=True)
        make_checkout("yolov5", checkout)
        install_bundle(checkout, BUNDLE)
        wanted = {"quantize", "torch", *(("export", "onnxruntime") if options.onnxruntime else ())}
        floats, others = {}, {}
        for data in sets:
            try:
                weight = weights.get(data.name) or data.weight or train(options, data, shop)
            except StepFailed as error:
                print(f"{data.name}: {error}", file=sys.stderr)
                failed.append(data.name)
                continue
            plan = Plan(options, data, weight)
            floats[data.name] = plan.float_job()
            others[data.name] = [
                *map(plan.ptq_job, options.methods),
                *map(plan.qat_job, options.qat),
            ]
        runs = {job.name: functools.partial(shop.run_job, job, wanted) for job in floats.values()}
        failed += shop.side_by_side(runs)
        jobs = [job for name, job in floats.items() if job.name not in failed for job in others[name]]
        failed += shop.side_by_side({job.name: functools.partial(shop.run_job, job, wanted) for job in jobs})
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code."""
    options = build_parser().parse_args(arguments)
    if options.qat and not options.methods:
        raise UserError("--qat starts from the first of --methods: give one")
    options.work = options.work.resolve()
    sources, weights = pairs(options.sets, "--sets"), pairs(options.weights, "--weights")
    for name, file in weights.items():
        if name not in sources or not file.is_file():
            raise UserError(f"--weights {name}={file}: there is no such {'file' if name in sources else 'set'}")
    failed: list[str] = []
    if "run" in options.stages:
        sets = [lay_out(name, source, options.work / "data" / name) for name, source in sources.items()]
        failed = measure(options, sets, weights)
    if "report" in options.stages:
        write_report(options.work, list(sources), options.out, options.name)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
