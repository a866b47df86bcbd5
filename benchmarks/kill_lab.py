"""A quantize run on a tiny net that can be killed: forked from a process that has imported everything.

Run in a yolov5 checkout that holds the bundle; ``kills.py`` and tests/cli/test_resume.py make one.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

HERE = Path(__file__).resolve().parent
sys.path[:0] = [".", str(HERE)]

from quantization.errors import run_main
from quantization.options import QatOptions
from quantization.pictures import new_figure, save_figure
from quantization.qat.trainer import learning_rate
from quantization.upstream import checkout

checkout.install_shims()
checkout.install_shims = lambda scripts=False: None  # once, for all processes that are forked later

import torch
from random_net import random_net

torch.set_num_threads(1)  # a forked process has no other threads: OpenMP would wait for them for ever
OUTPUTS = {"ptq.pt", "qat.pt", "summary.json", "summary.png"}
Hook = Callable[[], None]


class Lab:
    """A weight file, and runs of ``quantize`` on it in folders of their own.

    Args:
        folder: takes the weight and the runs.
        data: the drawn data set.
        epochs: of QAT.
        steps: per epoch.
        more: more options of every run.
    """

    def __init__(self, folder: Path, data: Path, epochs: int = 2, steps: int = 6, more: Sequence[str] = ()) -> None:
        self.folder, self.data, self.epochs, self.steps = folder.resolve(), data, epochs, steps
        self.weight = self.folder / "tiny.pt"
        if not self.weight.is_file():
            model = random_net(str(HERE / "tiny.yaml"), 3)
            torch.save({"model": model, "ema": None, "epoch": -1}, str(self.weight))
        self.options = [
            *("--cocodir", str(data), "--imgsz", "64", "--batch-size", "4", "--calib-batches", "2", "--square"),
            *("--device", "cpu", "--workers", "1", "--epochs", str(epochs), "--iters", str(steps), "--eval-ptq"),
            *("--backend", "native", "--eval-origin", "--calib-method", "mse", *more),
        ]

    def start(self, run: str, more: Sequence[str] = (), hook: Hook | None = None, options: bool = True) -> int:
        """Start a run in a process of its own.

        Args:
            run: the folder of its outputs; its log is appended to ``run.log`` beside it.
            more: more arguments.
            hook: called in the process first.
            options: give the options; without them the recorded ones count.

        Returns:
            The process id.
        """
        place = self.folder / run
        files = ["--ptq", str(place / "ptq.pt"), "--qat", str(place / "qat.pt")]
        summary = ["--summary", str(place / "summary.json")]
        arguments = ["quantize", str(self.weight), *summary, *([*files, *self.options] if options else []), *more]
        sys.stdout.flush()
        number = os.fork()
        if number:
            return number
        try:
            log = os.open(f"{place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._count(f"{place}.steps")
            if hook is not None:
                hook()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
            from quantization.cli.parser import run as command

            run_main(lambda _: command("yolov5", arguments))
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(99)

    @staticmethod
    def _count(file: str) -> None:
        """Every step of QAT appends its learning rate, which tells which one it is; a new process an empty line."""
        from quantization.qat.trainer import Trainer

        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, b"\n")
        original = Trainer.step

        def step(self: Any, images: Any, lr: float, targets: Any = None) -> Any:
            os.write(handle, f"{lr!r} ".encode())
            return original(self, images, lr, targets)

        Trainer.step = step  # type: ignore[method-assign]  # in this process, which was forked for one run

    def redone(self, run: str) -> int:
        """The most steps of QAT that one attempt did again."""
        options, total = QatOptions(), self.epochs * self.steps
        numbers = {learning_rate(step / total, options.lr, options.schedule): step for step in range(total)}
        assert len(numbers) == total  # no two steps have the same rate
        furthest, most = -1, 0
        for line in (self.folder / f"{run}.steps").read_text().splitlines():
            done = [numbers[float(word)] for word in line.split()]
            if done:
                most = max(most, furthest + 1 - done[0])
                furthest = max(furthest, *done)
        return most

    def run(
        self, run: str, more: Sequence[str] = (), hook: Hook | None = None, options: bool = True
    ) -> tuple[int, str]:
        """``start`` and wait: the exit code (minus the signal's number) and the log of this attempt."""
        log = self.folder / f"{run}.log"
        before = log.stat().st_size if log.exists() else 0
        code = exit_code(os.waitpid(self.start(run, more, hook, options), 0)[1])
        return code, log.read_bytes()[before:].decode(errors="replace")

    @staticmethod
    def kill(number: int, which: int) -> int:
        """Send a signal and wait for the end: the exit code."""
        os.kill(number, which)
        return exit_code(os.waitpid(number, 0)[1])

    def left(self, run: str) -> list[str]:
        """Files in a run's folder that are no results."""
        place = self.folder / run
        return sorted(file.name for file in place.iterdir() if file.name not in OUTPUTS) if place.is_dir() else []

    def result(self, run: str) -> dict[str, Any]:
        """What a finished run found: figures, and of both checkpoints the record and the weights."""
        place = self.folder / run
        summary = json.loads((place / "summary.json").read_text())
        found: dict[str, Any] = {"figures": summary["figures"], "amax": summary["amax"], "stage": summary["stage"]}
        for name in ("ptq", "qat"):
            content = torch.load(str(place / f"{name}.pt"), map_location="cpu", weights_only=False)
            info = dict(content["quant_tools"])
            found[f"{name} run"] = info.pop("run") == summary["run"]
            info.pop("options")  # the folders differ
            found[name], found[f"{name} weights"] = info, content["model"].state_dict()
        return found

    def discard(self, run: str) -> None:
        """Remove a run."""
        shutil.rmtree(self.folder / run, ignore_errors=True)
        for ending in ("log", "steps"):
            (self.folder / f"{run}.{ending}").unlink(missing_ok=True)

    def reference(self, run: str = "reference") -> dict[str, Any]:
        """The uninterrupted run's result; what it imports is imported here, for the processes forked later."""
        names = self.folder / "modules.txt"
        hook = _write_modules(names)
        code, log = self.run(run, hook=hook)
        assert code == 0, log
        for name in names.read_text().split():
            if name.split(".")[0] not in ("__main__", "kill_lab"):
                try:
                    importlib.import_module(name)
                except Exception as error:  # some modules exist in sys.modules alone
                    print(f"not imported: {name} ({type(error).__name__})", file=sys.stderr)
        warm = new_figure(7, 5.5)
        warm.subplots()
        save_figure(warm, str(self.folder / "warm.png"))  # matplotlib reads its fonts once
        return self.result(run)


def _write_modules(file: Path) -> Hook:
    """A hook that writes which modules a run has imported in the end."""

    def hook() -> None:
        from quantization.cli import commands

        original = commands.quantize_command

        def command(name: str, options: Any) -> int:
            code = original(name, options)
            file.write_text("\n".join(name for name in sorted(sys.modules) if sys.modules[name] is not None))
            return code

        commands.TABLE["quantize"] = command

    return hook


def exit_code(status: int) -> int:
    """Of a wait status; minus the signal's number where one ended the process."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what two results do not have in common, bit for bit."""
    found = []
    for name in sorted(set(first) | set(second)):
        one, other = first.get(name), second.get(name)
        if name.endswith("weights"):
            assert isinstance(one, dict) and isinstance(other, dict)
            same = set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)
        else:
            same = one == other
        if not same:
            found.append(name)
    return found


def wait(number: int, seconds: float) -> int | None:
    """The exit code of a process that ends within some seconds; None: it still runs."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return exit_code(status)
        left = until - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(0.005, left))
