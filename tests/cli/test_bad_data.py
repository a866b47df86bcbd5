"""``quantize`` on broken data: one line of error and not one file, or a run without what upstream leaves out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest

import checkouts as checkouts_module
from support.bad_data import FAULTS, SPLITS, Fault
from support.drawn_data import NAMES
from support.workflow import SUPPORT, TASKS, run_python

PROGRAM = SUPPORT / "quantize_cases.py"
NETS = {
    "yolov5": Path(checkouts_module.__file__).parent / "tiny.yaml",
    "yolov7": "cfg/training/yolov7-tiny.yaml",
}
SMALL = (
    "--imgsz 64 --calib-batches 1 --epochs 1 --iters 1 --batch-size 2 --workers 1 --task-weight 1 --device cpu".split()
)
RUNS = [
    (name, split, form)
    for name, fault in FAULTS.items()
    for split in SPLITS
    for form in fault.forms
    if fault.split in (None, split)
]
WHOLE = ("picture_of_no_bytes", "val", "data")  # this run goes on to its end
Results = Callable[[str], "dict[tuple[str, str, str], dict[str, Any]]"]


@pytest.fixture(scope="module")
def results(checkouts: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """``results("yolov5")``: what quantize did to every data set, all in one process."""
    world = tmp_path_factory.mktemp("world")
    for name, split in {run[:2] for run in RUNS}:
        FAULTS[name].make(world / name / split, split)
    before = sorted(world.rglob("*"))
    found: dict[str, dict[tuple[str, str, str], dict[str, Any]]] = {}

    def get(upstream: str) -> dict[tuple[str, str, str], dict[str, Any]]:
        if upstream not in found:
            folder = tmp_path_factory.mktemp(upstream)
            found[upstream] = run_all(checkouts(upstream), upstream, world, folder)
            assert sorted(world.rglob("*")) == before  # data sets may lie on read-only disks
        return found[upstream]

    return get


def run_all(checkout: Path, upstream: str, world: Path, folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Quantize on every data set in a checkout, each with an output folder of its own."""
    run_python(checkout, TASKS, "make_random", NETS[upstream], folder / "net.pt", len(NAMES))
    jobs: list[dict[str, Any]] = []
    for number, (name, split, form) in enumerate(RUNS):
        data = world / name / split if form == "cocodir" else world / name / split / "data.yaml"
        out = folder / str(number)
        out.mkdir()
        outputs = [f"--{kind}={out / file}" for kind, file in FILES.items()]
        jobs.append(
            {
                "arguments": ["quantize", str(folder / "net.pt"), f"--{form}", str(data), *SMALL, *outputs],
                "out": str(out),
                "whole": FAULTS[name].error is not None or (name, split, form) == WHOLE,
            }
        )
    (folder / "jobs").write_text(json.dumps(jobs))
    before = checkout_files(checkout)
    run_python(checkout, PROGRAM, upstream, folder / "jobs", folder / "results")
    assert checkout_files(checkout) == before
    return dict(zip(RUNS, json.loads((folder / "results").read_text())))


FILES = {"ptq": "ptq.pt", "qat": "qat.pt", "summary": "summary.json"}


def checkout_files(checkout: Path) -> list[Path]:
    return sorted(path for path in checkout.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
@pytest.mark.parametrize("name, split, form", RUNS)
def test_refused_before_any_work_or_left_out(results: Results, name: str, split: str, form: str, upstream: str) -> None:
    fault, result = FAULTS[name], results(upstream)[name, split, form]
    if fault.error is not None:
        assert result["code"] == 2, result
        (line,) = result["stderr"].splitlines()
        assert line.startswith("error: ") and re.search(fault.error, line)
        assert result["files"] == []
        return
    assert result["code"] == 0, result["stderr"]
    assert re.search(fault.says, result["log"]), result["log"]
    if (name, split, form) == WHOLE:
        assert {*FILES.values()} < {*result["files"]}
    else:
        counts = {part: 7 if part == split else 8 for part in SPLITS}
        assert f"accepted: {counts['train']} training, {counts['val']} validation images" in result["log"]
        assert result["files"] == []


def test_the_table_is_as_large_as_promised() -> None:
    def count(split: str) -> int:
        return sum(fault.split in (None, split) for fault in FAULTS.values())

    assert isinstance(next(iter(FAULTS.values())), Fault) and count("train") >= 10 and count("val") >= 10
