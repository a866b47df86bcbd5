"""What benchmarks/accuracy.py runs: the training and the jobs of every model and seed."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Mapping, NamedTuple

import yaml
from accuracy_data import link_dataset
from accuracy_jobs import Job, Step, StepFailed, Workshop, write_json
from bundle import BUNDLE
from command_lines import flagged

from checkouts import HYP, install_bundle, make_checkout

NMS_THRESHOLD = 0.65  # in every evaluation: what both upstreams use for COCO figures
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

    def script(self, command: str, file: Path, options: Mapping[str, object], *more: str) -> list[str]:
        """A command of scripts/qat-UPSTREAM.py on a checkpoint or an ONNX file."""
        device = ["--device", self.options.device] if self.options.device else []
        program = [sys.executable, f"scripts/qat-{self.upstream}.py"]
        return [*program, command, str(file), *flagged(options), *more, *device]

    def evaluation(self, output: Path) -> dict[str, object]:
        """Options of every evaluation, which writes its figures to ``output``."""
        return {"--cocodir": self.test_data, "--nmsthres": NMS_THRESHOLD, "--save-json": output}

    def plan_file(self, run: Run) -> Path:
        """Where bench-engine.py --save-engine puts the plan."""
        return self.options.work / "plans" / f"{self.name}-{run.name}-b{self.options.tensorrt_batch}.plan"

    def files(self, run: Run) -> Path:
        """Folder of the files that a run makes."""
        return self.folder / run.name

    def job(self, run: Run) -> Job:
        """The steps of one run: make a checkpoint, evaluate it in torch, in ONNX Runtime and in TensorRT."""
        folder, results = self.files(run), self.results / run.name
        checkpoint = self.weights if run.name == "float" else folder / ("qat.pt" if run.qat else "ptq.pt")
        steps = []
        if run.bundle:
            steps.append(Step("quantize", self._published_quantize(run), checkpoint))
        elif run.method:
            steps.append(Step("quantize", self._quantize(run), checkpoint))
        if not run.bundle:
            steps.append(Step("torch", self._test(checkpoint, results / "torch.json"), results / "torch.json"))
        steps += self._steps_in_runtimes(run, checkpoint)
        checkout = folder / "checkout" if run.bundle else self.checkout
        prepare = functools.partial(self._prepare, run, checkout)
        return Job(f"{self.name}/{run.name}", results, folder / "log.txt", checkout, steps, prepare)

    def _quantize(self, run: Run) -> list[str]:
        options, folder = self.options, self.files(run)
        flags: dict[str, object] = {
            "--cocodir": self.mosaics if run.mosaics else self.data,
            **self._checkpoints(run),
            "--summary": folder / "summary.json",
            "--calib-method": run.method,
            "--imgsz": options.imgsz,
            "--square": None,
            "--seed": self.seed,
        }
        return self.script(
            "quantize", self.weights, flags, *shlex.split(options.quantize_options), *shlex.split(run.options)
        )

    def _published_quantize(self, run: Run) -> list[str]:
        """Another bundle's quantize: the published command line; the figures come from our evaluator."""
        flags: dict[str, object] = {
            "--cocodir": self.files(run) / "coco",
            **self._checkpoints(run),
            "--eval-origin": None,
            "--eval-ptq": None,
        }
        return self.script("quantize", self.weights, flags, *shlex.split(run.options))

    def _checkpoints(self, run: Run) -> dict[str, object]:
        folder = self.files(run)
        return {"--ptq": folder / "ptq.pt", **({"--qat": folder / "qat.pt"} if run.qat else {})}

    def _test(self, file: Path, output: Path) -> list[str]:
        options = self.options
        size: dict[str, object] = {"--imgsz": options.imgsz, "--square": None, "--batch-size": options.test_batch}
        return self.script("test", file, {**self.evaluation(output), **size})

    def _steps_in_runtimes(self, run: Run, checkpoint: Path) -> list[Step]:
        """Export, evaluation in ONNX Runtime and, where there is one, evaluation of the engine."""
        options, results = self.options, self.results / run.name
        onnx, output = self.files(run) / "model.onnx", results / "onnxruntime.json"
        export = self.script("export", checkpoint, {"--size": options.imgsz, "--save": onnx, "--dynamic": None})
        test = self._test(onnx, output)
        if run.bundle:
            test[1] = str(self.checkout / test[1])  # ours, not the other bundle's
        steps = [Step("export", export, onnx), Step("onnxruntime", test, output)]
        if options.tensorrt_python:
            output = results / "tensorrt.json"
            program = [options.tensorrt_python, str(BUNDLE / "scripts" / "eval-engine.py"), str(self.plan_file(run))]
            flags = {**self.evaluation(output), "--batch-size": options.test_batch}
            steps.append(Step("tensorrt", [*program, *flagged(flags)], output))
        return steps

    def _prepare(self, run: Run, checkout: Path) -> None:
        """Another bundle gets its own checkout and data folder: it may write where it likes."""
        if not self.weights.is_file():
            raise StepFailed("there is no trained model")
        if run.bundle:
            shutil.rmtree(checkout, ignore_errors=True)
            make_checkout(self.upstream, checkout)
            install_bundle(checkout, self.options.bundle[run.bundle])
            link_dataset(self.data, self.files(run) / "coco", self.data / "train2017.txt")

    def train(self, shop: Workshop) -> None:
        """Upstream's train.py on the drawn data; resumes from last.pt if a training was stopped.

        Raises:
            StepFailed: train.py failed; the results folder says so.
        """
        if self.weights.is_file():
            return
        self.training.mkdir(parents=True, exist_ok=True)
        failed = self.results / "train" / "failed.json"
        if failed.is_file():
            failed.unlink()
        data = self._training_lists()
        try:
            seconds = self._run_training(shop, data)
        except StepFailed as error:
            if not shop.stopped:
                write_json(failed, {"step": "train", "message": shop.plain([str(error)])[0]})
            raise
        write_json(
            self.results / "train" / "train.json",
            {"command": shop.plain(self.train_options(data)), "seconds of the last call": round(seconds, 1)},
        )
        print(f"{time.strftime('%H:%M:%S')} {self.name}: trained, {seconds:.0f} s", flush=True)

    def _training_lists(self) -> Path:
        """data.yaml of the training, with its own lists: the upstreams keep caches beside them that differ."""
        lists = {}
        for part in ("train", "val"):
            lists[part] = str(self.training / f"{part}.txt")
            paths = (self.data / f"{part}2017.txt").read_text().split()
            Path(lists[part]).write_text("".join(f"{os.path.normpath(self.data / path)}\n" for path in paths))
        drawn = yaml.safe_load((self.data / "data.yaml").read_text())
        data = self.training / "data.yaml"
        data.write_text(yaml.safe_dump({**lists, "nc": drawn["nc"], "names": drawn["names"]}))
        return data

    def _run_training(self, shop: Workshop, data: Path) -> float:
        """Resume the training, or start it; seconds of the command that finished it."""
        log, last = self.training / "log.txt", self.training / "run" / "weights" / "last.pt"
        # the shell renames, so a training that outlives this process is still completed
        rename = '"$@" && mv -f "$0/run/weights/best.pt" "$0/float.pt"'
        launcher = ["sh", "-c", rename, str(self.training), sys.executable, "-m", "quantization.upstream", "train.py"]
        if last.is_file():
            try:
                return shop.command([*launcher, "--resume", str(last)], self.checkout, log)
            except StepFailed as error:
                if shop.stopped:
                    raise
                print(f"{self.name}: last.pt cannot be resumed ({error}): training starts over", flush=True)
                shutil.rmtree(self.training / "run")
        return shop.command([*launcher, *self.train_options(data)], self.checkout, log)

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
        flags: dict[str, object] = {
            "--data": data,
            "--cfg": self.cfg,
            "--weights": "",
            "--hyp": file,
            "--epochs": options.epochs,
            "--batch-size": options.batch_size,
            "--img-size": options.imgsz,
            "--noautoanchor": None,
            "--workers": options.loader_workers,
            "--project": self.training,
            "--name": "run",
            "--exist-ok": None,
        }
        if options.device:
            flags["--device"] = options.device
        if self.upstream == "yolov5":
            flags.update({"--optimizer": "AdamW", "--seed": self.seed})
            flags.update({"--noval": None, "--noplots": None, "--cache": "ram"})
        else:
            flags.update(dict.fromkeys(("--adam", "--linear-lr", "--notest", "--cache-images")))
        return flagged(flags)
