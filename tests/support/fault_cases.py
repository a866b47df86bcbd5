"""Runs of ``quantize`` that meet faults; run in a yolov5 checkout: python fault_cases.py DATA.

Prints a JSON object of what happened, on the last line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

import torch
from kill_lab import Hook, Lab


def before(owner: Any, name: str, action: Callable[[], None], call: int = 1) -> None:
    """Do something before the n-th call of a function."""
    original, calls = getattr(owner, name), []

    def function(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            action()
        return original(*arguments, **keywords)

    setattr(owner, name, function)


def vanish(files: list[Path], stage: str, call: int = 1) -> Hook:
    """A hook: files go when a stage begins."""

    def remove() -> None:
        for file in files:
            file.unlink()

    def hook() -> None:
        from quantization.cli.quantization import Quantization

        before(Quantization, stage, remove, call)

    return hook


def out_of_memory(module: str, name: str) -> Hook:
    """A hook: a function finds no memory on the GPU."""

    def fail(*arguments: Any, **keywords: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has 1 GiB\nsecond line")

    def hook() -> None:
        import importlib

        place: Any = importlib.import_module(module)
        if ":" in name:
            owner, name_in_it = name.split(":")
            setattr(getattr(place, owner), name_in_it, fail)
        else:
            setattr(place, name, fail)

    return hook


def copy_of(data: Path, folder: Path) -> Path:
    """A data set whose images may go."""
    return Path(shutil.copytree(data, folder, symlinks=True))


def vanished(lab: Lab, folder: Path, data: Path) -> dict[str, Any]:
    """Images that go in QAT: two, all but one; one in the calibration, one in the evaluation."""
    result: dict[str, Any] = {"named": {}}
    for run, stage, split, count, call in (
        ("vanished", "qat", "train2017", 2, 1),
        ("all vanished", "qat", "train2017", 23, 1),
        ("vanished in calibration", "ptq", "train2017", 24, 1),
        ("vanished in evaluation", "measure", "val2017", 8, 1),
    ):
        own = copy_of(data, folder / f"{run} data")
        images = sorted((own / "images" / split).iterdir())[:count]
        short = Lab(lab.folder, own, epochs=1, steps=8)
        result[run] = short.run(run, hook=vanish(images, stage, call))
        if run == "vanished":
            summary = json.loads((lab.folder / run / "summary.json").read_text())
            result["vanished images"], result["gone"] = summary["images_that_failed"], [str(file) for file in images]
        elif run == "all vanished":
            result["all vanished files"] = sorted(
                file.name for file in (lab.folder / run).iterdir() if not file.name.endswith(".state.pt")
            )
        else:
            result["named"][run.split()[-1]] = str(own / "images" / split)
    return result


def records(lab: Lab) -> dict[str, str]:
    """What is said of checkpoints whose record is of the wrong type."""
    from quantization.errors import UserError
    from quantization.upstream import checkpoint
    from quantization.upstream.record import read_record

    content = torch.load(str(lab.folder / "plain" / "ptq.pt"), map_location="cpu", weights_only=False)
    good, messages = content["quant_tools"], {}
    for name, value in (("list", [1]), ("str", "text"), ("int", 5), ("groups", {**good, "groups": [[1]]})):
        content["quant_tools"] = value
        torch.save(content, "record.pt")
        try:
            read_record(checkpoint.load("record.pt", torch.device("cpu"), "yolov5")[1], "record.pt")
        except UserError as error:
            messages[name] = str(error)
    os.remove("record.pt")
    return messages


def main(data: str) -> None:
    """All cases in one process, so that torch is imported once."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        lab = Lab(folder, Path(data), epochs=1, steps=2)
        lab.reference()
        result: dict[str, Any] = {"plain": lab.run("plain")}
        result.update(vanished(lab, folder, Path(data)))
        result["memory in QAT"] = lab.run("memory", hook=out_of_memory("quantization.qat.trainer", "Trainer:step"))
        result["memory in QAT files"] = [file.name for file in (folder / "memory").iterdir()]
        calibrate = out_of_memory("quantization.cli.quantization", "calibrate")
        result["memory in calibration"] = lab.run("calibration", hook=calibrate)
        result["records"] = records(lab)
        result["load is torch's"] = not hasattr(torch.load, "quant_tools")
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
