"""deploy without its stages: what each gets, the lines for the target, exit codes, what is resumed.

The stages themselves run in ``test_workflow.py``.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantization.cli import deploy
from quantization.cli.options import DeployCommand
from quantization.cli.parser import parse
from quantization.cli.resume import plain_record
from quantization.engine.arguments import parser as bench_parser
from quantization.engine.named_engines import make_specs
from quantization.errors import UserError
from quantization.evaluation.comparison import NamedImages
from quantization.option_fields import typed_words
from quantization.options import DataOptions
from quantization.qat.length import with_steps
from support.deploy_stages import options_of, stages_fixture  # noqa: F401
from support.drawn_data import PLAIN, Drawn
from support.workflow import load_script


def test_the_better_checkpoint_becomes_the_onnx(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    assert deploy.deploy_command("yolov5", options_of(tmp_path, "--qat", "--imgsz", "320", "--exporter", "dynamo")) == 0
    (asked,) = stages["quantize"]
    assert asked.eval_origin and asked.eval_ptq and asked.images.square and asked.images.imgsz == 320
    (chosen, graph, model), (weight, float_graph, _) = stages["export"]
    assert (chosen, weight, model) == (str(tmp_path / "qat.pt"), "w.pt", str(tmp_path / "model.onnx"))
    assert graph == float_graph and graph.shape == (320, 320) and graph.exporter == "dynamo"
    assert {file.name for file in tmp_path.iterdir()} >= {"deploy.json", "preflight.json", "report.html"}
    assert "bench-engine.py" in (tmp_path / "report.html").read_text()


def test_both_onnx_are_compared_on_the_data_set(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    deploy.deploy_command("yolov5", options_of(tmp_path))
    assert stages["images"] == [NamedImages("my data.yaml", ["yolov5"])] * 2


def test_images_to_compare_on_are_those_that_can_be_read(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.finish()
    (data.val / PLAIN[3]).write_bytes(b"no picture")
    images = deploy.usable_images("yolov5", DataOptions(cocodir=str(tmp_path)))
    assert images is not None and images.name == f"--cocodir {tmp_path}"
    assert [Path(file).name for file in images.files] == [*PLAIN[:3], *PLAIN[4:]]
    for file in data.val.iterdir():
        file.write_bytes(b"no picture")
    assert deploy.usable_images("yolov5", DataOptions(data=str(tmp_path / "data.yaml"))) is None


def test_without_qat_there_is_none(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    assert deploy.deploy_command("yolov7", options_of(tmp_path)) == 0
    assert stages["quantize"][0].qat is None and stages["export"][0][0] == str(tmp_path / "ptq.pt")


@pytest.mark.parametrize(
    "words, message",
    [
        (("--exporter", "dynamo", "--opset", "15"), "--opset 15 cannot hold"),
        (("--target-tensorrt", "8.6", "--opset", "19"), "opset 19 is too new"),
        (("--target-tensorrt", "8.6", "--fp16-remainder"), "--fp16-remainder is for strongly typed"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    words: tuple[str, ...], message: str, tmp_path: Path, stages: dict[str, list[Any]]
) -> None:
    with pytest.raises(UserError, match=message):
        deploy.deploy_command("yolov5", options_of(tmp_path, *words))
    assert not stages["quantize"] and not list(tmp_path.iterdir())


def test_the_model_is_asked_whether_it_can_be_exported_before_any_work(
    tmp_path: Path, stages: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(tmp_path, "--end2end", "onnx", "--imgsz", "320")
    deploy.deploy_command("yolov5", options)
    assert stages["exportable"] == [("the float model", deploy.graph_options(options))]

    def refuse(*asked: Any) -> None:
        raise UserError("no")

    monkeypatch.setattr(deploy, "check_exportable", refuse)
    with pytest.raises(UserError, match="no"):
        deploy.deploy_command("yolov5", options_of(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(UserError, match=r"--out .*model\.onnx is a folder"):
        deploy.deploy_command("yolov5", options_of(tmp_path))
    assert not stages["quantize"]


@pytest.mark.parametrize("words", [(), ("--dynamic", "--batch", "16")])
def test_the_lines_for_the_target_are_read_by_the_scripts(tmp_path: Path, words: tuple[str, ...]) -> None:
    """What one writes the next one reads: the plan, the layers and times of both engines."""
    options = options_of(tmp_path, *words)
    bench, accuracy, drawing, comparison, report = deploy.target_lines("yolov7", options)
    specs = make_specs(bench_parser().parse_args(bench[1:]))
    assert [(spec.name, spec.mode) for spec in specs] == [("fp16", "fp16"), ("int8", "qat")]
    read = load_script("eval-engine").build_parser().parse_args(accuracy[1:])
    assert (
        read.engine == specs[1].plan
        and read.onnx == specs[1].onnx
        and read.data == "my data.yaml"
        and read.nmsthres == 0.65
        and read.objectness
    )
    parse_arguments = load_script("draw-engine").parse_arguments
    drawn, compared = parse_arguments(drawing[1:]), parse_arguments(comparison[1:])
    assert (str(drawn.layer), str(drawn.profile)) == (specs[1].layer_info, specs[1].profile)
    assert (str(compared.layer), str(compared.profile)) == (specs[0].layer_info, specs[0].profile)
    assert (str(compared.compare), str(compared.compare_profile)) == (specs[1].layer_info, specs[1].profile)
    assert report == ["make-report.py", str(tmp_path)]


STEPS = ["bench-engine.py", "eval-engine.py", "draw-engine.py", "draw-engine.py"]


@pytest.mark.parametrize("failing, ran, code", [(None, 4, 0), ("eval-engine.py", 4, 1), ("bench-engine.py", 1, 1)])
def test_where_tensorrt_is_the_lines_are_run(
    tmp_path: Path,
    stages: dict[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    failing: str | None,
    ran: int,
    code: int,
) -> None:
    """All of them, but without engines none; the report is made."""
    steps: list[str] = []

    def run_line(line: list[str]) -> bool:
        steps.append(line[0])
        return line[0] != failing

    monkeypatch.setattr(deploy, "tensorrt_problem", lambda: None)
    monkeypatch.setattr(deploy, "run_line", run_line)
    assert deploy.deploy_command("yolov5", options_of(tmp_path)) == code
    assert steps == STEPS[:ran] and (tmp_path / "report.html").is_file()


def test_a_new_run_shows_no_engine_of_an_earlier_one(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    (tmp_path / "engines").mkdir()
    accuracy = tmp_path / "engines" / "map.json"
    accuracy.write_text('{"map": 0.1234, "map50": 0.2}')
    deploy.deploy_command("yolov5", options_of(tmp_path, "--resume"))
    assert "0.1234" in (tmp_path / "report.html").read_text()
    deploy.deploy_command("yolov5", options_of(tmp_path))
    assert not accuracy.exists() and "0.1234" not in (tmp_path / "report.html").read_text()


def test_out_that_is_a_file_is_refused_by_its_name(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*notes is a file: name a folder"):
        deploy.deploy_command("yolov5", options_of(tmp_path / "notes"))
    assert not stages["quantize"] and (tmp_path / "notes").read_text() == "mine"


def test_a_line_that_fails_is_no_success() -> None:
    assert not deploy.run_line(["draw-engine.py", "--layer", "missing.json"])


def test_resume_takes_the_options_of_the_run(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    options = options_of(tmp_path, "--qat", "--epochs", "3", "--opset", "17", "--ignore-policy", "a b", "c")
    deploy.deploy_command("yolov5", options)
    given = {"weight": "w.pt", "out": str(tmp_path), "resume": True}
    resumed = deploy.resumed_deploy(given)
    assert (resumed.training, resumed.graph, resumed.placement) == (options.training, options.graph, options.placement)
    assert deploy.quantize_options(resumed).resume
    with pytest.raises(UserError, match="was started with epochs 3, not 4"):
        deploy.resumed_deploy({**given, "epochs": 4})
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    with pytest.raises(UserError, match="was started with --out"):
        deploy.resumed_deploy({**given, "out": str(moved)})


def test_a_run_whose_epochs_follow_from_the_data_is_resumed(tmp_path: Path) -> None:
    """Its summary has the steps that quantize found, its record none."""
    options = options_of(tmp_path, "--qat")
    asked = deploy.quantize_options(options)
    begun = replace(asked, training=with_steps(asked.training, 700, asked.images.batch_size))
    Path(begun.summary).write_text(json.dumps({"options": plain_record(begun), "stage": "finished"}))
    assert deploy.quantize_options(replace(options, resume=True)).training.iters == 70
    with pytest.raises(UserError, match="was started with iters 70, not 71"):
        deploy.quantize_options(replace(options, resume=True, training=replace(options.training, iters=71)))


def test_resume_without_a_run_needs_all_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run in"):
        deploy.resumed_deploy({"weight": "w.pt", "out": str(tmp_path), "resume": True})
    made = deploy.resumed_deploy({"weight": "w.pt", "out": str(tmp_path), "resume": True, "data": "d.yaml"})
    assert made.resume and made.images.data == "d.yaml"


def test_the_line_that_is_kept_gives_the_same_options(tmp_path: Path, stages: dict[str, list[Any]]) -> None:
    options = options_of(
        tmp_path, "--qat", "--no-rules", "--lr", "3e-5", "--ignore-policy", r"model\.2", ".*cv3", "--amp=off"
    )
    deploy.deploy_command("yolov5", options)
    words = shlex.split(json.loads((tmp_path / "deploy.json").read_text())["command"])
    assert words[:2] == ["python", "scripts/qat-yolov5.py"] and parse("yolov5", words[2:]) == ("deploy", options)
    assert typed_words(DeployCommand("w.pt")) == ["w.pt"]
