"""deploy where TensorRT computes boxes wrong, or where that cannot be told: verdict, table, report, exit code."""

from __future__ import annotations

import html
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantization.cli import deploy
from quantization.cli.options import DeployCommand
from quantization.closing import Closing
from quantization.engine.arguments import parser as bench_parser
from quantization.engine.named_engines import make_specs
from quantization.options import DataOptions
from support.deploy_stages import options_of, stages_fixture  # noqa: F401
from support.drawn_data import NAMES, SIDE, Drawn
from support.perfect_detector import other_form, perfect_detector, with_plugin
from support.stand_in_engine import let_engines_stand_in, stretch
from support.workflow import load_script


def run_in_process(line: list[str]) -> bool:
    """As deploy.run_line, of eval-engine.py alone."""
    return line[0] != "eval-engine.py" or load_script("eval-engine").main(line[1:]) == 0


@pytest.mark.parametrize(
    "fault, code, warning, shown",
    [
        ("", 0, "", "no more than quantization noise."),
        ("wrong kernel", 1, "Do NOT ship its INT8 engine: its boxes are WRONG", "SUSPICIOUS"),
        ("plugin", 0, "engine's boxes are right is not known", "not compared with ONNX Runtime"),
        ("no onnxruntime", 0, "engine's boxes are right is not known", "pip install onnxruntime"),
    ],
)
def test_boxes_of_the_engine_decide(
    tmp_path: Path,
    stages: dict[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    code: int,
    warning: str,
    shown: str,
) -> None:
    """The line of eval-engine is run on a stand-in for the engine; a fault leaves its scores right."""
    data, run = Drawn(tmp_path), tmp_path / "run"
    data.finish()

    def export_both(name: str, options: DeployCommand, chosen: str) -> bool:
        file = perfect_detector(run / "model.onnx", (SIDE, SIDE), len(NAMES))
        plan = run / "engines" / "int8.plan"
        plan.parent.mkdir()
        plan.write_bytes(file.read_bytes())
        if fault == "plugin":
            with_plugin(file, NAMES)
            other_form(perfect_detector(plan, (SIDE, SIDE), len(NAMES)), "efficient-nms", len(NAMES))
        return True

    if fault == "no onnxruntime":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    let_engines_stand_in(monkeypatch, stretch if fault else None)
    monkeypatch.setattr(deploy, "export_both", export_both)
    endings: list[Closing] = []
    monkeypatch.setattr(deploy, "tell", endings.append)
    monkeypatch.setattr(deploy, "tensorrt_problem", lambda: None)
    monkeypatch.setattr(deploy, "run_line", run_in_process)
    assert deploy.deploy_command("yolov5", options_of(run, "--data", str(tmp_path / "data.yaml"))) == code
    (ending,) = endings
    page = html.unescape((run / "report.html").read_text())
    assert warning in ending.verdict and warning in page and shown in page
    assert bool(warning) == ("INT8 engine" in ending.verdict)
    assert ending.found is not None and ending.found.rows[-1].label == f"INT8 engine{', boxes WRONG' * code}"
    locating = [line for line in ending.following if line.endswith(f"--check-images {tmp_path}/data.yaml --locate")]
    assert len(locating) == code
    for line in locating:
        asked = bench_parser().parse_args(shlex.split(line)[2:])
        assert asked.locate and [spec.name for spec in make_specs(asked)] == ["fp16", "int8"]


def test_a_step_that_fails_says_nothing_of_an_earlier_engine(
    tmp_path: Path, stages: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines").mkdir()
    accuracy = tmp_path / "engines" / "map.json"
    accuracy.write_text('{"map": 0.1234, "map50": 0.2}')
    endings: list[Closing] = []
    monkeypatch.setattr(deploy, "tell", endings.append)
    monkeypatch.setattr(deploy, "tensorrt_problem", lambda: None)
    monkeypatch.setattr(deploy, "run_line", lambda line: False)
    assert deploy.deploy_command("yolov5", options_of(tmp_path, "--resume")) == 1
    assert endings[0].verdict.endswith(". A step with TensorRT FAILED: see above")
    assert not accuracy.exists() and "0.1234" not in (tmp_path / "report.html").read_text()


def test_wrong_boxes_that_the_target_found_stay_an_error(
    tmp_path: Path, stages: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is back from the target, on a machine without TensorRT."""
    (tmp_path / "engines").mkdir()
    boxes = {"text": "SUSPICIOUS", "are_wrong": True, "are_judged": True}
    (tmp_path / "engines" / "map.json").write_text(json.dumps({"map": 0.4, "map50": 0.6, "compared_boxes": boxes}))
    endings: list[Closing] = []
    monkeypatch.setattr(deploy, "tell", endings.append)
    assert deploy.deploy_command("yolov5", options_of(tmp_path, "--resume")) == 1
    assert "Do NOT ship" in endings[0].verdict and endings[0].following[1].endswith("--locate")


def test_images_to_locate_on_are_those_that_are_evaluated(tmp_path: Path) -> None:
    """Of a COCO layout its list, or its folder where it has none."""
    options = replace(options_of(tmp_path), images=DataOptions(cocodir=str(tmp_path)))
    assert deploy.locating_line(options, ["bench-engine.py"]).split()[3] == f"{tmp_path}/images/val2017"
    (tmp_path / "val2017.txt").write_text("")
    assert deploy.locating_line(options, ["bench-engine.py"]).split()[3] == f"{tmp_path}/val2017.txt"
