"""What benchmarks/accuracy.py runs: data, checkouts, trainings, and the jobs of every model and seed."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple, Sequence

import yaml
from accuracy_jobs import ROOT, Job, Step, StepFailed, Workshop, read_json, write_json

from checkouts import HYP, install_bundle, make_checkout
from shapes import draw_dataset

NMS_THRESHOLD = 0.65  # for every evaluation: what both upstreams take for COCO figures
TEST_SEEDS = 1000  # the test images of seed 3 are drawn with seed 1003
MODELS = {
    **{f"yolov5{size}": ("yolov5", f"models/yolov5{size}.yaml") for size in "nsmlx"},
    **{name: ("yolov7", f"cfg/training/{name}.yaml") for name in ("yolov7-tiny", "yolov7", "yolov7x")},
}


class Run(NamedTuple):
    """One way of quantizing."""

    name: str
    title: str
    method: str = ""  # calibrator; empty: float, or another bundle's own
    mosaics: bool = False  # calibrate on upstream's augmented images
    qat: bool = False
    options: str = ""  # more options of quantize
    bundle: str = ""  # another bundle's name


def runs(options: argparse.Namespace) -> list[Run]:
    """All runs that the command line asks for; float comes first."""
    first = options.methods[0]
    found = [Run("float", "float")]
    found += [Run(method, f"PTQ, {method}", method) for method in options.methods]
    if options.mosaic_images:
        found.append(Run(f"{first}-mosaics", f"PTQ, {first}, calibrated on augmented mosaics", first, mosaics=True))
    if options.qat_epochs:
        budget = f"--epochs {options.qat_epochs} --iters {options.qat_iters} {options.qat_options}".strip()
        for name, more in {"": "", **options.variant}.items():
            title = f"QAT from {first}" + (f", {name}: `{more}`" if name else "")
            found.append(Run(f"qat-{name}" if name else "qat", title, first, qat=True, options=f"{budget} {more}"))
    for name in options.bundle:
        for qat in (False, True):
            kind = "qat" if qat else "ptq"
            found.append(
                Run(
                    f"{name}-{kind}",
                    f"bundle {name}: {kind.upper()}",
                    qat=qat,
                    bundle=name,
                    options=options.bundle_options.get(name, ""),
                )
            )
    return found


class Experiment:
    """One model and seed: its files, its training and its jobs. Its data is drawn for it (another seed, other data).

    Args:
        options: of the command line.
        model: a key of ``MODELS``.
        seed: of the data, the training (yolov7's train.py takes none), the calibration images and QAT.
    """

    def __init__(self, options: argparse.Namespace, model: str, seed: int) -> None:
        self.options, self.model, self.seed = options, model, seed
        self.upstream, self.cfg = MODELS[model]
        self.name = f"{model}-{seed}"
        work: Path = options.work
        self.data, self.test_data = work / "data" / str(seed), work / "data" / f"{seed}-test"
        self.mosaics = work / "data" / f"{seed}-mosaics-{self.upstream}"
        self.checkout = work / "checkouts" / self.upstream
        self.training, self.folder, self.results = (work / part / self.name for part in ("train", "runs", "results"))
        self.weights = self.training / "float.pt"

    def script(self, *words: object) -> list[str]:
        device = ["--device", self.options.device] if self.options.device else []
        return [sys.executable, f"scripts/qat-{self.upstream}.py", *map(str, words), *device]

    def evaluation(self, output: Path) -> list[object]:
        return ["--cocodir", self.test_data, "--nmsthres", NMS_THRESHOLD, "--save-json", output]

    def plan_file(self, run: Run) -> Path:
        """Where bench-engine.py --save-engine puts the plan."""
        return self.options.work / "plans" / f"{self.name}-{run.name}-b{self.options.tensorrt_batch}.plan"

    def job(self, run: Run) -> Job:
        """The steps of one run: make a checkpoint, evaluate it in torch, in ONNX Runtime and in TensorRT."""
        options, folder, results = self.options, self.folder / run.name, self.results / run.name
        checkpoint = self.weights if run.name == "float" else folder / ("qat.pt" if run.qat else "ptq.pt")
        onnx = folder / "model.onnx"
        size = ["--imgsz", options.imgsz, "--square", "--batch-size", options.test_batch]
        files: list[object] = ["--ptq", folder / "ptq.pt", *(["--qat", folder / "qat.pt"] if run.qat else [])]
        steps = []
        if run.bundle:  # the published commands; figures come from our evaluator
            view = functools.partial(link_dataset, self.data, folder / "coco", self.data / "train2017.txt")
            steps.append(
                Step(
                    "quantize",
                    self.script(
                        "quantize",
                        self.weights,
                        "--cocodir",
                        folder / "coco",
                        *files,
                        "--eval-origin",
                        "--eval-ptq",
                        *shlex.split(run.options),
                    ),
                    checkpoint,
                )
            )
        else:
            view = None
            if run.method:
                data = self.mosaics if run.mosaics else self.data
                steps.append(
                    Step(
                        "quantize",
                        self.script(
                            "quantize",
                            self.weights,
                            "--cocodir",
                            data,
                            *files,
                            "--summary",
                            folder / "summary.json",
                            "--calib-method",
                            run.method,
                            "--imgsz",
                            options.imgsz,
                            "--square",
                            "--seed",
                            self.seed,
                            *shlex.split(options.quantize_options),
                            *shlex.split(run.options),
                        ),
                        checkpoint,
                    )
                )
            output = results / "torch.json"
            steps.append(Step("torch", self.script("test", checkpoint, *self.evaluation(output), *size), output))
        steps.append(
            Step(
                "export", self.script("export", checkpoint, "--size", options.imgsz, "--save", onnx, "--dynamic"), onnx
            )
        )
        output = results / "onnxruntime.json"
        test = self.script("test", onnx, *self.evaluation(output), *size)
        if run.bundle:
            test[1] = str(self.checkout / test[1])
        steps.append(Step("onnxruntime", test, output))
        if options.tensorrt_python:
            output = results / "tensorrt.json"
            steps.append(
                Step(
                    "tensorrt",
                    [
                        str(word)
                        for word in (
                            options.tensorrt_python,
                            ROOT / "scripts" / "eval-engine.py",
                            self.plan_file(run),
                            *self.evaluation(output),
                            "--batch-size",
                            options.test_batch,
                        )
                    ],
                    output,
                )
            )
        checkout = folder / "checkout" if run.bundle else self.checkout

        def prepare() -> None:
            if not self.weights.is_file():
                raise StepFailed("there is no trained model")
            if run.bundle:  # a checkout and a data folder of its own: it may write where it likes
                shutil.rmtree(checkout, ignore_errors=True)
                make_checkout(self.upstream, checkout)
                install_bundle(checkout, options.bundle[run.bundle])
                view()

        return Job(f"{self.name}/{run.name}", results, folder / "log.txt", checkout, steps, prepare)

    def train(self, shop: Workshop) -> None:
        """Upstream's train.py on the drawn data; goes on from last.pt if a training was stopped.

        Raises:
            StepFailed: train.py failed; the results folder says so.
        """
        if self.weights.is_file():
            return
        self.training.mkdir(parents=True, exist_ok=True)
        log, failed = self.training / "log.txt", self.results / "train" / "failed.json"
        if failed.is_file():
            failed.unlink()
        data = self.training / "data.yaml"
        lists = {}
        for part in ("train", "val"):  # lists of its own: the upstreams keep caches beside them that differ
            lists[part] = str(self.training / f"{part}.txt")
            paths = (self.data / f"{part}2017.txt").read_text().split()
            Path(lists[part]).write_text("".join(f"{os.path.normpath(self.data / path)}\n" for path in paths))
        drawn = yaml.safe_load((self.data / "data.yaml").read_text())
        data.write_text(yaml.safe_dump({**lists, "nc": drawn["nc"], "names": drawn["names"]}))
        weights = self.training / "run" / "weights"
        # the shell renames, so that a training that outlives this process is finished all the same
        launcher = [
            "sh",
            "-c",
            '"$@" && mv -f "$0/run/weights/best.pt" "$0/float.pt"',
            str(self.training),
            sys.executable,
            "-m",
            "quantization.upstream",
            "train.py",
        ]
        try:
            if (weights / "last.pt").is_file():
                try:
                    seconds = shop.command([*launcher, "--resume", str(weights / "last.pt")], self.checkout, log)
                except StepFailed as error:
                    if shop.stopped:
                        raise
                    print(f"{self.name}: last.pt cannot be resumed ({error}): training starts anew", flush=True)
                    shutil.rmtree(self.training / "run")
            if not (weights / "last.pt").is_file():
                seconds = shop.command([*launcher, *self.train_options(data)], self.checkout, log)
        except StepFailed as error:
            if not shop.stopped:
                write_json(failed, {"step": "train", "message": shop.plain([str(error)])[0]})
            raise
        write_json(
            self.results / "train" / "train.json",
            {"command": shop.plain(self.train_options(data)), "seconds of the last call": round(seconds, 1)},
        )
        print(f"{time.strftime('%H:%M:%S')} {self.name}: trained, {seconds:.0f} s", flush=True)

    def train_options(self, data: Path) -> list[str]:
        """Options of train.py; writes the file of hyper-parameters.

        The warm-up is ten times the run, as hyp-shapes.yaml explains: a step per batch, whatever its size, and with a
        linear decay a rate of lr0 * (e / 10 E) * (1 - e / E) at epoch e of E, highest in the middle: lr0 / 40.
        """
        options = self.options
        hyp = yaml.safe_load(HYP.read_text())
        hyp.update(lr0=40 * options.lr, warmup_epochs=10.0 * options.epochs, mosaic=options.mosaic)
        file = self.training / "hyp.yaml"
        file.write_text(yaml.safe_dump(hyp))
        words: list[object] = [
            "--data",
            data,
            "--cfg",
            self.cfg,
            "--weights",
            "",
            "--hyp",
            file,
            "--epochs",
            options.epochs,
            "--batch-size",
            options.batch_size,
            "--img-size",
            options.imgsz,
            "--noautoanchor",
            "--workers",
            options.loader_workers,
            "--project",
            self.training,
            "--name",
            "run",
            "--exist-ok",
            *(["--device", options.device] if options.device else []),
        ]
        if self.upstream == "yolov5":
            words += ["--optimizer", "AdamW", "--seed", self.seed, "--noval", "--noplots", "--cache", "ram"]
        else:
            words += ["--adam", "--linear-lr", "--notest", "--cache-images"]
        return [str(word) for word in words]


def link_dataset(source: Path, out: Path, train: Path) -> None:
    """A COCO folder with the images and annotations of ``source`` and another (or the same) training list."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in ("images", "labels", "annotations"):
        (out / name).symlink_to(source / name, target_is_directory=True)
    for name, listing in (("train2017.txt", train), ("val2017.txt", source / "val2017.txt")):
        lines = listing.read_text().split()
        if listing.parent != source:
            lines = [os.path.normpath(listing.parent / line) for line in lines]
        (out / name).write_text("".join(f"{line}\n" for line in lines))


def make_data(options: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Draw every seed's data: to train on (with images that QAT chooses its best epoch by), and to test on."""
    done_file = options.work / "data" / "done.json"
    for seed in seeds:
        for name, train, val, drawn_with in (
            (str(seed), options.images, options.val_images, seed),
            (f"{seed}-test", 1, options.test_images, TEST_SEEDS + seed),
        ):
            done: dict[str, str] = read_json(done_file, {})
            folder = options.work / "data" / name
            if name in done and folder.is_dir():
                continue
            shutil.rmtree(folder, ignore_errors=True)
            draw_dataset(
                folder,
                train,
                val,
                options.draw_size,
                options.classes,
                options.objects,
                drawn_with,
                options.difficulty,
                largest=options.largest,
            )
            write_json(done_file, {**done, name: str(folder)})
            print(f"drawn: {folder}", flush=True)


def make_checkouts(options: argparse.Namespace, experiments: Sequence[Experiment]) -> None:
    """A checkout of every upstream needed, with this bundle copied into it as it is now."""
    for upstream, checkout in {experiment.upstream: experiment.checkout for experiment in experiments}.items():
        shutil.rmtree(checkout, ignore_errors=True)
        make_checkout(upstream, checkout)
        install_bundle(checkout, ROOT)


def make_mosaics(experiments: Sequence[Experiment], shop: Workshop) -> list[str]:
    """Augmented images of each upstream and seed, and the data folder that has them to calibrate on.

    Returns:
        Names of those that failed.
    """

    def draw(experiment: Experiment) -> None:
        options, folder = experiment.options, experiment.mosaics
        drawn = folder.with_name(folder.name + "-images")
        shop.command(
            [
                sys.executable,
                str(ROOT / "benchmarks" / "accuracy_mosaics.py"),
                experiment.upstream,
                str(experiment.data / "train2017.txt"),
                str(drawn),
                "--imgsz",
                str(options.imgsz),
                "--count",
                str(options.mosaic_images),
                "--seed",
                str(experiment.seed),
            ],
            experiment.checkout,
            folder.with_name(folder.name + ".log"),
        )
        link_dataset(experiment.data, folder, drawn / "train2017.txt")

    missing = {
        experiment.mosaics: experiment
        for experiment in experiments
        if not (experiment.mosaics / "val2017.txt").is_file()
    }
    return shop.side_by_side({path.name: functools.partial(draw, experiment) for path, experiment in missing.items()})
