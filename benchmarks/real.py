r"""What quantization costs on photographs, each figure with its 95 % interval: a table for several data sets.

For each set: the float model, and the ways of quantizing that are asked for (PTQ by a calibrator, QAT by a recipe), each with
several seeds, in torch and in ONNX Runtime; differences to float in points of mAP@0.5:0.95, with classes merged and per
class. Sets without a weight are trained first, by upstream's train.py from --start until it stops early.

    python benchmarks/real.py --work DIR --sets coco128=/data/coco128_yolo corn-pests=/data/dataset-yolov5 mine=/data/mine \
        --weights coco128=/data/dataset-yolov5/yolov5/yolov5n.pt [OPTIONS]

``real_sets.py`` names the public sets that it knows; nothing is downloaded. Commands run in the order of --ways, for all sets
and seeds each, so that a call that is ended early has done the first ones. A second call continues where the first one
stopped, and writes the table of what is done; --stages report only writes it. Networks are measured in torch, on rectangles
as upstream does; --square and --onnxruntime add squares, the shape of an engine. --pairs adds tables of ways against each
other, which are the sharper comparison: what the float model's figure is uncertain by is not in them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Callable, Sequence

from accuracy_jobs import Job, Step, StepFailed, Workshop, write_json
from accuracy_report import machine
from bundle import BUNDLE
from command_lines import flagged
from real_pairs import RUNTIMES, way_pairs
from real_report import MACHINE, write_report
from real_sets import RealSet, lay_out

from checkouts import install_bundle, make_checkout
from quantization.errors import UserError, run_main
from quantization.options import CALIBRATION_METHODS

SCRIPT = "scripts/qat-yolov5.py"
RECIPES = {
    "default": "",
    "published": "--calib-method mse --no-equalize --task-weight 0 --loss mse --schedule steps --lr 1e-5",
    "distillation": "--task-weight 0",
    "scales": "--learn-scales",
    "distillation-scales": "--task-weight 0 --learn-scales",
    "average": "--ema 0.99",
    # fixed ranges by the maximum; Adam does not see the common factor of a loss, so 1000 makes the others a thousandth of it
    "ultralytics": "--calib-method max --group-scale max --no-equalize --task-weight 1000",
}
WAYS = {  # of quantizing, to their options of ``quantize``
    **{f"ptq-{method}": f"--calib-method {method}" for method in CALIBRATION_METHODS},
    **{f"qat-{name}": words for name, words in RECIPES.items()},
}
KINDS = tuple(RUNTIMES)  # of measurements, the one that every network gets first
TIMED_OUT = "exit code 124"  # of the command ``timeout``
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
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=f"{', '.join(WAYS)}; default: every PTQ")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of calibration images and QAT")
    these = "of these ways alone where some are named"
    parser.add_argument(
        "--square", nargs="*", choices=WAYS, metavar="WAY", help=f"measure on squares in torch too; {these}"
    )
    parser.add_argument(
        "--onnxruntime", nargs="*", choices=WAYS, metavar="WAY", help=f"measure the exported ONNX too; {these}"
    )
    parser.add_argument(
        "--pairs", nargs="+", default=[], metavar="WAY:WAY", help="tables of the first against the second in the report"
    )
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="threads of each command that read images")
    parser.add_argument("--epochs", type=int, default=300, help="of training, at most")
    parser.add_argument("--patience", type=int, default=30, help="epochs without progress that end the training")
    parser.add_argument(
        "--train-seconds", type=int, help="end a training after so long, and take its best epoch so far"
    )
    parser.add_argument("--train-options", default="", metavar="WORDS", help="more options of upstream's train.py")
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
        self.common = ["--data", str(data.data), "--imgsz", str(options.imgsz), "--device", options.device]
        self.common += ["--workers", str(options.workers)]

    def job(self, name: str, steps: Sequence[Step]) -> Job:
        """Steps of one network; what they need of the float model is there before.

        Args:
            name: "float" or WAY/SEED.
            steps: in order.
        """
        return Job(
            f"{self.set.name}/{name}",
            self.results / name,
            self.options.work / "logs" / f"{self.set.name}-{name.replace('/', '-')}.log",
            self.options.work / "yolov5",
            list(steps),
        )

    def float_job(self) -> Job:
        """The float model, whose samples all others are compared with: in whatever any of them is measured."""
        kinds = [kind for kind in KINDS if kind == "torch" or getattr(self.options, kind) is not None]
        return self.job("float", self._measures("float", self.weight, kinds))

    def way_job(self, way: str, seed: int) -> Job:
        """One of ``WAYS``."""
        model = self.models / way / f"{seed}.pt"
        files = ["--ptq", str(model)]
        if way.startswith("qat-"):
            files = ["--ptq", str(model.with_name(f"{seed}-ptq.pt")), "--qat", str(model)]
        summary = str(model.with_name(f"{seed}-summary.json"))
        words = ["quantize", str(self.weight), *files, *WAYS[way].split(), "--seed", str(seed), "--summary", summary]
        words.append("--restart")  # what a call that was ended left behind is not gone on with
        step = Step("quantize", [sys.executable, SCRIPT, *words, *self.common], model)
        return self.job(f"{way}/{seed}", [step, *self._measures(f"{way}/{seed}", model, self.kinds(way))])

    def kinds(self, way: str) -> list[str]:
        """Those of ``KINDS`` in which a way is measured."""
        asked = {kind: getattr(self.options, kind) for kind in KINDS[1:]}
        return ["torch", *(kind for kind, ways in asked.items() if ways is not None and (not ways or way in ways))]

    def _measures(self, name: str, model: Path, kinds: Sequence[str]) -> list[Step]:
        """Figures of these ``KINDS``, with the float model's samples of the same kind."""
        steps: list[Step] = []
        for kind in kinds:
            measured = model
            if kind == "onnxruntime":
                measured = self.models / f"{name}.onnx"
                words = [sys.executable, SCRIPT, "export", str(model), "--size", str(self.options.imgsz), "--dynamic"]
                steps.append(Step("export", [*words, "--save", str(measured), "--device", "cpu"], measured))
            steps.append(self._measure(kind, measured, name))
        return steps

    def _measure(self, kind: str, model: Path, name: str) -> Step:
        output, reference = self.results / name / f"{kind}.json", self.results / "float" / f"{kind}.npz"
        words = ["test", str(model), "--save-json", str(output), "--save-samples", str(output.with_suffix(".npz"))]
        if kind == "square":
            words.append("--square")
        if name != "float":
            words += ["--against", str(reference)]
        return Step(kind, [sys.executable, SCRIPT, *words, *self.common], output)


def trained(options: argparse.Namespace, data: RealSet) -> Path:
    """The checkpoint that ``train`` makes of a set."""
    return Path(options.work / "train" / data.name / "weights" / "best.pt")


def train(options: argparse.Namespace, data: RealSet, shop: Workshop) -> None:
    """Train the float checkpoint of a set that has none, until it stops early.

    Raises:
        StepFailed: the training failed.
    """
    weight = trained(options, data)
    done = weight.parent.parent / "done"
    if done.is_file():
        return
    words = {
        "--weights": options.start.resolve(),
        "--data": data.data,
        "--imgsz": options.imgsz,
        "--epochs": options.epochs,
        "--patience": options.patience,
        "--project": weight.parent.parent.parent,
        "--name": data.name,
        "--exist-ok": None,
        **({"--device": "cpu"} if options.device == "cpu" else {}),  # another one would overwrite CUDA_VISIBLE_DEVICES
    }
    command = [sys.executable, "-m", "quantization.upstream", "train.py", *flagged(words)]
    if options.train_seconds:
        command = ["timeout", str(options.train_seconds), *command]
    try:
        shop.command(
            [*command, *shlex.split(options.train_options)],
            options.work / "yolov5",
            options.work / "logs" / f"{data.name}-train.log",
        )
    except StepFailed as error:
        if not (str(error).startswith(TIMED_OUT) and weight.is_file()):
            raise
    done.touch()


def networks(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Ways and seeds, in the order in which they are made of each set."""
    return list(itertools.product(options.ways, options.seeds))


def measure(options: argparse.Namespace, sets: Sequence[RealSet], weights: dict[str, Path]) -> list[str]:
    """Run what is missing; names of the jobs that failed."""
    with Workshop(options.work, options.jobs, options.threads) as shop:
        checkout = options.work / "yolov5"
        shutil.rmtree(checkout, ignore_errors=True)
        make_checkout("yolov5", checkout)
        install_bundle(checkout, BUNDLE)
        write_json(options.work / MACHINE, machine())
        work: dict[str, Callable[[], None]] = {}
        after: dict[str, str] = {}
        plans = []
        for data in sets:
            weight = weights.get(data.name) or data.weight
            if weight is None:
                after[f"{data.name}/float"] = f"{data.name}/train"
                work[f"{data.name}/train"] = functools.partial(train, options, data, shop)
            plans.append(Plan(options, data, weight or trained(options, data)))
        for plan in plans:
            first = plan.float_job()
            work[first.name] = functools.partial(shop.run_job, first, {"torch"})
        for (way, seed), plan in itertools.product(networks(options), plans):
            job, first = plan.way_job(way, seed), plan.float_job()
            after[job.name] = first.name
            if len(plan.kinds(way)) > 1:  # the others need not wait for it
                after[job.name] = squares = f"{first.name}, squares"
                after[squares] = first.name
                work.setdefault(squares, functools.partial(shop.run_job, first, {step.name for step in first.steps}))
            work[job.name] = functools.partial(shop.run_job, job, {step.name for step in job.steps})
        return shop.side_by_side(work, after)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code."""
    options = build_parser().parse_args(arguments)
    options.ways = options.ways or [way for way in WAYS if way.startswith("ptq-")]
    options.work = options.work.resolve()
    sources, weights = pairs(options.sets, "--sets"), pairs(options.weights, "--weights")
    for name, file in weights.items():
        if name not in sources or not file.is_file():
            raise UserError(f"--weights {name}={file}: there is no such {'file' if name in sources else 'set'}")
    compared = way_pairs(options.pairs)
    failed: list[str] = []
    if "run" in options.stages:
        sets = [lay_out(name, source, options.work / "data" / name) for name, source in sources.items()]
        untrained = [data.name for data in sets if data.weight is None and data.name not in weights]
        if untrained and options.start is None:
            raise UserError(
                f"{untrained[0]} has no weight: give --start, a checkpoint to train it from, or --weights {untrained[0]}=PT"
            )
        failed = measure(options, sets, weights)
    if "report" in options.stages:
        write_report(options.work, list(sources), options.out, options.name, compared)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
