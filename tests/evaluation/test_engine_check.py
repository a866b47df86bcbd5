"""Engines against ONNX Runtime: right ones pass, one whose boxes are corrupted is an error, scores right or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from quantization.engine import cli as bench_cli
from quantization.engine.bench import EngineBoxes
from quantization.errors import UserError
from quantization.evaluation.comparison import named_images
from quantization.evaluation.engine_check import EngineCheck
from quantization.evaluation.verdict import COMPARED
from quantization.onnx_graph.origin import Origin
from support.drawn_data import NAMES, SIDE, Drawn
from support.fake_tensorrt import fake_cuda_fixture, fake_trt_fixture  # noqa: F401
from support.perfect_detector import other_form, perfect_detector, with_plugin
from support.stand_in_engine import StandIn, let_engines_stand_in, stretch
from support.workflow import load_script


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = Drawn(tmp_path_factory.mktemp("drawn"))
    data.finish()
    return data.root


@pytest.fixture(params=["rows", "efficient-nms"])
def onnx_file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    file = perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES))
    return str(file if request.param == "rows" else other_form(file, request.param, len(NAMES)))


def check(onnx_file: str, source: Path | None, corrupt: Any = None) -> EngineBoxes:
    engine: Any = StandIn(onnx_file)
    engine.corrupt = corrupt
    return EngineCheck(None if source is None else named_images(str(source / "images" / "val2017")))(
        engine, onnx_file, StandIn
    )


def test_right_boxes_pass_and_corrupted_ones_are_wrong(onnx_file: str, drawn: Path) -> None:
    right, wrong = check(onnx_file, drawn), check(onnx_file, drawn, stretch)
    assert right.are_judged and wrong.are_judged and not right.are_wrong and right.text.endswith("quantization noise")
    assert "boxes differ by 0 pixels" in right.text and "confident detections in 8 images" in right.text
    assert wrong.are_wrong and "SUSPICIOUS" in wrong.text


def swap(outputs: dict[str, np.ndarray]) -> None:
    """Corners the wrong way round, where there are corners."""
    for name in set(outputs) & {"det_boxes"}:
        outputs[name] = outputs[name][..., [2, 3, 0, 1]]


def test_outputs_that_cannot_be_read_are_wrong(drawn: Path, tmp_path: Path) -> None:
    file = str(
        other_form(perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES)), "efficient-nms", len(NAMES))
    )
    wrong = check(file, drawn, swap)
    assert wrong.are_wrong and wrong.text.startswith("WRONG, what it gives cannot be read")


def test_drawn_images_are_no_reason_for_an_error(onnx_file: str) -> None:
    assert check(onnx_file, None)[1:] == (False, False)
    wrong = check(onnx_file, None, stretch)
    assert not wrong.are_wrong and "drawn images (--check-images names real ones)" in wrong.text


def test_what_cannot_be_compared_says_why(onnx_file: str, tmp_path: Path) -> None:
    engine: Any = StandIn(onnx_file)
    found = EngineCheck()(engine, str(tmp_path / "none.onnx"), StandIn)
    assert found == (f"not compared with ONNX Runtime ({tmp_path}/none.onnx does not exist)", False, False)
    with pytest.raises(UserError):
        named_images(str(tmp_path / "no images"))


def test_eval_engine_names_a_missing_plan_before_a_missing_gpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.plan does not exist"):
        load_script("eval-engine").main([str(tmp_path / "none.plan"), "--data", "data.yaml"])


@pytest.mark.parametrize("are_wrong", [False, True])
def test_bench_checks_what_it_builds(
    fake_cuda: Any, fake_trt: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], are_wrong: bool
) -> None:
    fake_cuda()
    fake_trt(high=(8, 3, 4, 4))
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    (tmp_path / "loaded.plan").write_bytes(b"plan")
    np.save(tmp_path / "calib.npy", np.zeros((2, 3, 4, 4), np.uint8))
    asked: list[Any] = []

    def make_check(source: str | None, locate: bool) -> Any:
        asked.append((source, locate))

        def compare(engine: Any, onnx: str, rebuild: Any) -> EngineBoxes:
            with rebuild(onnx) as again:  # as it was built, and another one
                assert again.name == engine.name and again is not engine
            return EngineBoxes(f"{engine.name} of {Path(onnx).name}", are_wrong, True)

        return compare

    arguments = [tmp_path / "net.onnx", "--modes", "ptq", "--load-engine", tmp_path / "loaded.plan", "--batch", 8]
    arguments += ["--calib-images", tmp_path / "calib.npy", "--check-images", tmp_path, "--rounds", 1]
    arguments += ["--locate"]
    arguments += ["--duration", 0.02, "--warmup", 0.01]
    assert bench_cli.main(list(map(str, arguments)), make_check=make_check) == int(are_wrong)
    assert asked == [(str(tmp_path), True)]
    assert "ptq: ptq of net.onnx" in capsys.readouterr().out.splitlines()


def test_check_images_need_an_onnx_and_tensorrts_own_package() -> None:
    with pytest.raises(UserError, match="--locate would have no effect without --check-images"):
        bench_cli.main(["a.onnx", "--locate"])
    with pytest.raises(UserError, match="name one, or drop it"):
        bench_cli.main(["--load-engine", "a.plan", "--check-images", "x"])
    for option in ("--use-trtexec", "--build-only"):
        with pytest.raises(UserError, match="--check-images runs the engines"):
            bench_cli.main(["a.onnx", option, "--check-images", "x", "--save-engine", "plans"])


@pytest.mark.parametrize("corrupted", [False, True])
def test_eval_engine_compares_with_the_onnx(
    onnx_file: str,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    corrupted: bool,
) -> None:
    script: ModuleType = load_script("eval-engine")
    let_engines_stand_in(monkeypatch, stretch if corrupted else None)
    plan = tmp_path / "net.plan"
    plan.write_bytes(Path(onnx_file).read_bytes())
    assert script.main([str(plan), "--cocodir", str(drawn), "--onnx", onnx_file]) == int(corrupted)
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert last.startswith(f"against ONNX Runtime on --cocodir {drawn}: ") and ("SUSPICIOUS" in last) == corrupted
    assert "does not tell its upstream" in out and "NMS IoU is 0.65" in out
    (tmp_path / "net.plan.json").write_text(json.dumps({"metadata": Origin("yolov5", 0.6).metadata()}))
    figures = tmp_path / "figures.json"
    words = [str(plan), "--cocodir", str(drawn), "--save-json", str(figures)]
    assert script.main([*words, "--onnx", onnx_file]) == int(corrupted)
    content = json.loads(figures.read_text())
    assert content["compared_boxes"] == {"text": last, "are_wrong": corrupted, "are_judged": True}
    assert content["options"]["onnx"] == onnx_file
    capsys.readouterr()
    script.main(words)
    assert COMPARED not in json.loads(figures.read_text())
    assert "net.plan comes from yolov5, so NMS IoU is 0.6" in capsys.readouterr().out
    assert json.loads(figures.read_text())["options"]["nmsthres"] == 0.6
    script.main([str(plan), "--cocodir", str(drawn), "--nmsthres", "0.5", "--save-json", str(figures)])
    assert "so NMS IoU" not in capsys.readouterr().out
    assert json.loads(figures.read_text())["options"]["nmsthres"] == 0.5
    with pytest.raises(UserError, match="--onnx compares an engine with its ONNX"):
        script.main([onnx_file, "--cocodir", str(drawn), "--onnx", onnx_file])


@pytest.mark.parametrize("reason", ["EfficientNMS_TRT", "onnxruntime", "IR version"])
def test_eval_engine_says_what_keeps_it_from_comparing(
    reason: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mAP does not suffer from a plugin in the ONNX, nor from a machine with an old ONNX Runtime, or without."""
    file = perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES))
    plan = tmp_path / "net.plan"
    plan.write_bytes(file.read_bytes())
    if reason == "EfficientNMS_TRT":
        plan.write_bytes(other_form(file, "efficient-nms", len(NAMES)).read_bytes())
        file = with_plugin(perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES)), NAMES)
    elif reason == "IR version":  # of an export that is newer than the target's ONNX Runtime
        model = onnx.load(str(file))
        model.ir_version = 99
        onnx.save(model, str(file))
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    let_engines_stand_in(monkeypatch, stretch)
    figures = tmp_path / "figures.json"
    words = [str(plan), "--cocodir", str(drawn), "--onnx", str(file), "--save-json", str(figures)]
    assert load_script("eval-engine").main(words) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("not compared with ONNX Runtime (") and reason in last
    content = json.loads(figures.read_text())
    assert content["map"] > 0 and content[COMPARED] == {"text": last, "are_wrong": False, "are_judged": False}


def test_an_onnx_that_is_none_is_refused_before_the_engine_is_loaded(drawn: Path, tmp_path: Path) -> None:
    for name in ("net.plan", "bad.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
    words = [str(tmp_path / "net.plan"), "--cocodir", str(drawn), "--onnx", str(tmp_path / "bad.onnx")]
    with pytest.raises(UserError, match=r"bad\.onnx is no model for ONNX Runtime"):
        load_script("eval-engine").main(words)


def test_an_onnx_needs_onnx_runtime(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "net.onnx").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"net\.onnx cannot be run here .*: pip install onnxruntime$"):
        load_script("eval-engine").main([str(tmp_path / "net.onnx"), "--cocodir", str(drawn)])
