"""A detector that errs never, on data sets as users have them: mAP 1, or one line of error before anything is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest

from support import file_cases, identity_cases, json_cases, odd_cases
from support.drawn_data import NAMES, SIDE
from support.perfect_detector import perfect_detector
from support.workflow import run_python

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "evaluate_cases.py"
CASES = {**identity_cases.TABLE, **json_cases.TABLE, **file_cases.TABLE, **odd_cases.TABLE}
RUNS = [(name, form) for name, case in CASES.items() for form in case.forms]
Results = Callable[[str], "dict[tuple[str, str], dict[str, Any]]"]


@pytest.fixture(scope="module")
def results(checkouts: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Results:
    """``results("yolov5")``: what the command ``test`` did to every case and form, all in one process."""
    world = tmp_path_factory.mktemp("world")
    detectors = [
        perfect_detector(world / f"{merged}.onnx", (SIDE, SIDE), len(NAMES), merged) for merged in (False, True)
    ]
    for name, case in CASES.items():
        case.make(world / name)
    before = sorted(world.rglob("*"))
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}

    def get(upstream: str) -> dict[tuple[str, str], dict[str, Any]]:
        if upstream not in found:
            folder = tmp_path_factory.mktemp(upstream)
            found[upstream] = run_all(checkouts(upstream), upstream, world, detectors, folder)
            assert sorted(world.rglob("*")) == before  # data sets may lie on read-only disks
        return found[upstream]

    return get


def run_all(
    checkout: Path, upstream: str, world: Path, detectors: list[Path], folder: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """Evaluate every case in a checkout; a run's figures join its result where there are any."""
    jobs = []
    for number, (name, form) in enumerate(RUNS):
        data = world / name if form == "cocodir" else world / name / "data.yaml"
        figures = folder / f"{number}.json"
        jobs.append(["test", detectors[CASES[name].one_class], f"--{form}", data, "--save-json", figures])
    (folder / "jobs").write_text(json.dumps([[str(word) for word in job] for job in jobs]))
    run_python(checkout, PROGRAM, upstream, folder / "jobs", folder / "results")
    results = json.loads((folder / "results").read_text())
    for number, result in enumerate(results):
        figures = folder / f"{number}.json"
        result["figures"] = json.loads(figures.read_text()) if figures.is_file() else None
    return dict(zip(RUNS, results))


def test_the_table_is_as_large_as_promised() -> None:
    assert len(CASES) >= 45 and all({form for name, form in RUNS} == {"cocodir", "data"} for _ in CASES)


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
@pytest.mark.parametrize("name, form", RUNS)
def test_map_is_1_or_an_error_says_why(results: Results, name: str, form: str, upstream: str) -> None:
    case, result = CASES[name], results(upstream)[name, form]
    if case.error is None:
        assert result["code"] == 0, result["stderr"]
        expected = case.images_yolov7 if upstream == "yolov7" else None
        assert result["figures"]["images"] == (case.images if expected is None else expected)
        assert (result["figures"]["map"], result["figures"]["map50"]) == pytest.approx((1, 1), abs=1e-9)
        assert not result["stderr"] and re.search(case.says, result["log"])
    else:
        assert result["code"] == 2 and result["figures"] is None
        (line,) = result["stderr"].splitlines()
        assert line.startswith("error: ") and re.search(case.error, line)
