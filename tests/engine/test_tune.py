"""bench-engine.py --tune on the stand-ins for CUDA and TensorRT: what is built, kept, resumed, and made void."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from quantization.engine import cli as bench_cli
from quantization.engine import cli_tune
from quantization.errors import UserError
from quantization.signals import Stopped
from support.fake_tensorrt import Builder, fake_cuda_fixture, fake_trt_fixture  # noqa: F401
from support.small_net import small_net
from support.tuning import NAMES, Meter, change, folder_fixture, list_as_it_is, recorded, trt_fixture, tune  # noqa: F401


def test_everything_is_built_once_and_timed_once(trt: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(folder, "--json", str(folder / "report.json")) == 0
    assert trt.builds == 4
    first = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in first.splitlines() if line.startswith(("fp16 ", "ptq ", *NAMES))}
    assert set(rows) >= {"fp16", *NAMES} and rows["fp16"][4] == "1.000"
    assert "ptq: mode ptq needs images to calibrate with: give --calib-images" in first
    report = json.loads((folder / "report.json").read_text())
    assert [engine["name"] for engine in report["engines"]] == ["fp16", *NAMES, "ptq"]
    assert report["engines"][1]["images_per_s"]["median"] == pytest.approx(report["engines"][1]["qps"]["median"])
    # all engines of the stand-in are equally fast
    assert "No INT8 engine beats FP16 on this GPU" in first
    figures = recorded(folder)["timing"]["figures"]
    assert tune(folder) == 0 and trt.builds == 4
    assert "not timed again" in capsys.readouterr().out and recorded(folder)["timing"]["figures"] == figures
    assert tune(folder, "--rounds", "3") == 0 and trt.builds == 4
    assert len(recorded(folder)["timing"]["figures"]["fp16"]["rounds"]) == 3


def test_a_run_that_was_stopped_goes_on(trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder.build_serialized_network

    def stop_at_the_third(self: Any, network: Any, config: Any) -> bytes:
        if trt.builds == 2:
            raise Stopped(15)
        return build(self, network, config)

    monkeypatch.setattr(Builder, "build_serialized_network", stop_at_the_third)
    first = Meter()
    (folder / "calib").write_bytes(b"cache")
    monkeypatch.setattr(cli_tune, "calibration_images", lambda source, count: None)
    with pytest.raises(Stopped):
        tune(folder, meter=first)
    assert first.measured == ["fp16", "ptq"] and set(recorded(folder)["engines"]) == {"fp16", "ptq"}
    monkeypatch.setattr(Builder, "build_serialized_network", build)
    again = Meter(known=True)
    assert tune(folder, meter=again) == 0
    assert trt.builds == 5 and again.measured == list(NAMES)
    # without the reference's samples the reference alone is measured again
    lost = Meter(known=False)
    assert tune(folder, meter=lost) == 0 and lost.measured == ["fp16"] and trt.builds == 5
    other = Meter(known=True, key="other data")
    assert tune(folder, meter=other) == 0 and other.measured == ["fp16", "ptq", *NAMES]
    # figures stay known in a run without data
    assert tune(folder, "--calib-cache", str(folder / "calib")) == 0
    assert recorded(folder)["engines"]["head-float"]["accuracy"]["map"] == pytest.approx(0.49)


def test_another_file_tensorrt_or_gpu_makes_figures_void(
    trt: Any, folder: Path, fake_trt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_tune, "calibration_images", lambda source, count: None)
    (folder / "calib").write_bytes(b"cache")
    assert tune(folder, meter=Meter()) == 0
    change(folder, "head-float")
    with pytest.raises(UserError, match=r"head-float\.onnx is not what was exported"):
        tune(folder, meter=Meter(known=True))
    list_as_it_is(folder, "head-float")
    meter = Meter(known=True)
    assert tune(folder, meter=meter) == 0
    assert trt.builds == 6 and meter.measured == ["head-float"]
    change(folder, "float")
    list_as_it_is(folder, "float")
    meter = Meter(known=True)
    assert tune(folder, meter=meter) == 0  # all differences were to another engine
    assert trt.builds == 8 and meter.measured == ["fp16", "ptq", *NAMES]
    newer, meter = fake_trt(version="8.6.1"), Meter(known=True)
    assert tune(folder, meter=meter) == 0
    assert newer.builds == 5 and meter.measured == ["fp16", "ptq", *NAMES]


def test_images_are_calibrated_on_and_other_engines_join_the_table(
    trt: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "images.npy", np.zeros((3, 3, 4, 4), np.uint8))
    small_net(folder / "other.onnx", "batch", quantized=True, side=4)
    (folder / "old.plan").write_bytes(b"old")
    others = ("--engine", f"modelopt=qat:{folder}/other.onnx", "--load-engine", f"{folder}/old.plan")
    assert tune(folder, "--calib-images", str(folder / "images.npy"), *others) == 0
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", "ptq", *NAMES, "modelopt", "old"}
    assert (folder / "plans" / "ptq.plan").read_bytes() == b"plan of 3 batches"
    assert "old " in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, words",
    [
        (["a.onnx"], "an ONNX"),
        (["--modes", "fp16"], "--modes"),
        (["--use-trtexec"], "--use-trtexec"),
        (["--dry-run"], "--dry-run"),
        (["--engine", "fp16=qat:b.onnx"], "two engines are called fp16"),
    ],
)
def test_what_tune_does_not_take(folder: Path, more: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tune(folder, *more)


def test_no_output_takes_the_place_of_a_variant_and_no_plan_is_missing(trt: Any, folder: Path) -> None:
    variant = folder / "default.onnx"
    before = variant.read_bytes()
    with pytest.raises(UserError, match=r"--json: .*default\.onnx would be overwritten"):
        tune(folder, "--json", str(variant))
    with pytest.raises(UserError, match=r"old\.plan does not exist"):
        tune(folder, "--load-engine", str(folder / "old.plan"))
    assert variant.read_bytes() == before and trt.builds == 0


def test_a_second_run_in_the_folder_is_refused(trt: Any, folder: Path) -> None:
    holder = Path(__file__).parents[1] / "support" / "lock_holder.py"
    words = [sys.executable, str(holder), str(folder / "tune.json")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"tune\.json is being written by process {other.pid}"):
            tune(folder)
        other.communicate("")
    assert trt.builds == 0 and tune(folder) == 0 and not list(folder.glob(".*.lock"))


def test_the_lock_is_held_while_engines_are_built(trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, held = Builder.build_serialized_network, []

    def look(self: Any, network: Any, config: Any) -> bytes:
        held.append((folder / ".tune.json.lock").read_text())
        return build(self, network, config)

    monkeypatch.setattr(Builder, "build_serialized_network", look)
    assert tune(folder) == 0 and held == [str(os.getpid())] * 4


def test_data_and_max_drop_are_for_tune() -> None:
    for flag, value in (("--data", "data.yaml"), ("--max-drop", "1")):
        with pytest.raises(UserError, match="--tune"):
            bench_cli.main(["a.onnx", flag, value])


def test_what_no_engine_can_have_is_refused_before_the_first_is_built(trt: Any, folder: Path) -> None:
    with pytest.raises(UserError, match="no strongly typed networks"):
        tune(folder, "--strongly-typed")
    assert trt.builds == 0


def test_newer_tensorrt_has_no_implicit_ptq(
    fake_cuda: Callable[[], None], fake_trt: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_cuda()
    fake_trt(version="11.0.0")
    np.save(folder / "images.npy", np.zeros((3, 3, 4, 4), np.uint8))
    tune(folder, "--calib-images", str(folder / "images.npy"))
    assert "ptq: TensorRT 11.0.0 has no implicit INT8 calibration" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 2, "engines": {}, "timing": {}}'])
def test_a_damaged_record_is_refused(trt: Any, folder: Path, content: str) -> None:
    (folder / "tune.json").write_text(content)
    with pytest.raises(UserError, match=r"tune\.json"):
        tune(folder)
    assert trt.builds == 0
