"""Runs of ``quantize`` that are killed and resumed; run in a yolov5 checkout: python resume_cases.py DATA.

Prints a JSON object of what happened, on the last line.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

from kill_lab import Hook, Lab, differences

OPTIONS = ("--ema", "0.9", "--learn-scales")


def signal_at(owner: str, name: str, call: int, number: int, after: bool = False) -> Hook:
    """A hook that sends the process a signal before, or after, the n-th call of a function: "module" or "module:Class"."""

    def hook() -> None:
        module, _, attribute = owner.partition(":")
        place: Any = importlib.import_module(module)
        place = getattr(place, attribute) if attribute else place
        original = getattr(place, name)
        calls: list[None] = []

        def function(*arguments: Any, **keywords: Any) -> Any:
            calls.append(None)
            if len(calls) == call and not after:
                os.kill(os.getpid(), number)
            result = original(*arguments, **keywords)
            if len(calls) == call and after:
                os.kill(os.getpid(), number)
            return result

        setattr(place, name, function)

    return hook


def full_disk(ending: str, until: int) -> Hook:
    """A hook: the first writes of files that end so fail as on a full disk."""

    def hook() -> None:
        from quantization import files

        original = os.replace
        failures: list[str] = []

        def replace(source: Any, target: Any) -> None:
            if str(target).endswith(ending) and len(failures) < until:
                failures.append(str(target))
                raise OSError(28, "No space left on device")
            original(source, target)

        files.os.replace = replace  # type: ignore[assignment]

    return hook


def folder_goes(folder: Path) -> Hook:
    """A hook: the outputs' folder is deleted when all is written."""

    def hook() -> None:
        from quantization.cli.quantization import Quantization

        original = Quantization._finish

        def finish(self: Quantization) -> None:
            shutil.rmtree(folder)
            original(self)

        Quantization._finish = finish  # type: ignore[method-assign]  # in this process, which was forked for one run

    return hook


def killed_and_resumed(lab: Lab, reference: dict[str, Any]) -> dict[str, Any]:
    """Killed after PTQ, asked to stop in the middle of an epoch, killed in the next epoch's evaluation; then to its end."""
    step, kept = "quantization.qat.trainer:Trainer", "quantization.qat.state:RunState"
    codes, logs = [], []
    for more, options, hook in (
        ([], True, signal_at(kept, "keep", 3, signal.SIGKILL, after=True)),  # started, float's figures, PTQ
        (["--resume"], False, signal_at(step, "step", 2, signal.SIGTERM)),
        (["--resume"], True, signal_at(kept, "keep", 2, signal.SIGKILL, after=True)),
        (["--resume"], False, signal_at("quantization.qat.trainer:Trainer", "step", 3, signal.SIGINT)),
    ):
        code, log = lab.run("killed", more, hook, options)
        codes.append(code)
        logs.append(log.splitlines()[-1] if log else "")
    refused = [
        lab.run("killed"),  # neither --resume nor --restart
        lab.run("killed", ["--resume", "--lr", "0.5"], options=False),
    ]
    done = lab.run("killed", ["--resume"], options=False)
    again = lab.run("killed", ["--resume"], options=False)
    return {
        "codes": codes,
        "last lines": logs,
        "refused": refused,
        "done": done,
        "again": again,
        "differences": differences(reference, lab.result("killed")),
        "left": lab.left("killed"),
        "redone": lab.redone("killed"),
    }


def two_runs(lab: Lab) -> dict[str, Any]:
    """A second run while the first one writes; a checkpoint of another run in the way of the first."""
    stop = signal_at("quantization.qat.trainer:Trainer", "step", 1, signal.SIGSTOP)
    first = lab.start("two", hook=stop)
    os.waitpid(first, os.WUNTRACED)
    second = lab.run("two")
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    own = lab.folder / "two" / "ptq.pt"
    own.write_bytes((lab.folder / "reference" / "ptq.pt").read_bytes())
    return {"first": first, "second": second, "foreign": lab.run("two", ["--resume"], options=False)}


def faults(lab: Lab) -> dict[str, Any]:
    """A summary that is never written, and a QAT checkpoint that is not until the last epoch."""
    short = Lab(lab.folder, lab.data, epochs=1, steps=1)
    summary = short.run("summary", hook=full_disk("summary.json", 99))
    kept = short.left("summary")
    mended = short.run("summary", ["--resume"], options=False)
    ptq = short.run("ptq", hook=full_disk("ptq.pt", 99))
    return {
        "summary": summary,
        "kept": kept,
        "mended": mended,
        "stage": short.result("summary")["stage"],
        "ptq": ptq,
        "ptq left": short.left("ptq"),
        "qat": short.run("qat", hook=full_disk("qat.pt", 1)),
        "qat left": short.left("qat"),
        "gone": short.run("gone", hook=folder_goes(short.folder / "gone")),
        "back": short.run("gone", ["--resume"], options=False),
        "back differs": differences(short.result("qat"), short.result("gone")),
    }


def main(data: str) -> None:
    """All cases in one process, so that torch is imported once."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), Path(data), epochs=2, steps=4, more=OPTIONS)
        reference = lab.reference()
        result = {
            "killed": killed_and_resumed(lab, reference),
            "two": two_runs(lab),
            "faults": faults(lab),
            "epochs": reference["figures"]["qat"]["epochs"],
        }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
