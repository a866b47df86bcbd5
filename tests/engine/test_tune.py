"""bench-engine.py --tune on the stand-ins for CUDA and TensorRT: what is built, kept, resumed, and made void."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from quantization.engine import cli as bench_cli
from quantization.engine import cli_tune
from quantization.engine.cuda import CudaError
from quantization.engine.plans import file_hash
from quantization.engine.runtime import Engine
from quantization.engine.variant_folder import VariantFile, VariantFolder, write_variant_folder
from quantization.errors import UserError
from quantization.signals import Stopped
from support.fake_tensorrt import Builder, fake_cuda_fixture, fake_trt_fixture, lose_cuda  # noqa: F401
from support.small_net import small_net

NAMES = ("default", "head-float", "stem-int8")
QUICK = ("--duration", "0.02", "--warmup", "0.01", "--rounds", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What export --variants would have written: four networks that differ."""
    files = [VariantFile("float", "float.onnx", "", None, ("export", "best.pt"))]
    small_net(tmp_path / "float.onnx", "batch", side=4)
    for number, name in enumerate(NAMES):
        file = small_net(tmp_path / f"{name}.onnx", "batch", quantized=True, side=4)
        file.write_bytes(file.read_bytes() + b"\n" * number)
        words = ("quantize", "best.pt", *(("--head", "float") if name == "head-float" else ()))
        files.append(VariantFile(name, file.name, "", words, ("export", "ptq.pt", "--dynamic")))
    listed = [VariantFile(*{**vars(f), "sha256": file_hash(str(tmp_path / f.file))}.values()) for f in files]
    write_variant_folder(str(tmp_path), VariantFolder("yolov5", (4, 4), ("a", "b"), 0.6, tuple(listed)))
    return tmp_path


@pytest.fixture
def trt(fake_cuda: Callable[[], None], fake_trt: Callable[[], Any]) -> Any:
    fake_cuda()
    return fake_trt()


class Meter:
    """Gives each engine a mAP and counts what it measures; ``known``: whether the reference is from an earlier run."""

    def __init__(self, known: bool = False, key: str = "data") -> None:
        self.key, self.known = key, known
        self.measured: list[str] = []

    def knows_reference(self) -> bool:
        return self.known

    def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
        self.measured.append(name)
        points = {} if name == "fp16" else {"points": -0.1 * len(name), "plus_minus": 0.05}
        return {"map": 0.5 - 0.001 * len(name), "map50": 0.7, **points}


def tune(folder: Path, *more: str, meter: Meter | None = None) -> int:
    """The command; with a meter on some data."""
    data = [] if meter is None else ["--data", "data.yaml", "--calib-cache", str(folder / "calib")]
    arguments = ["--tune", str(folder), *QUICK, *data, *more]
    return bench_cli.main(arguments, make_meter=lambda *_: meter)  # type: ignore[arg-type,return-value]


def recorded(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tune.json").read_text())
    return content


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


def change(folder: Path, name: str) -> None:
    """Another content, of the same form."""
    file = folder / f"{name}.onnx"
    file.write_bytes(file.read_bytes() + b"\n\n")


def list_as_it_is(folder: Path, name: str) -> None:
    """As if it had been exported so."""
    listed = json.loads((folder / "variants.json").read_text())
    entry = next(entry for entry in listed["variants"] if entry["name"] == name)
    entry["sha256"] = file_hash(str(folder / f"{name}.onnx"))
    (folder / "variants.json").write_text(json.dumps(listed))


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


def test_a_failed_build_leaves_the_others(
    trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder.build_serialized_network

    def no_head(self: Any, network: Any, config: Any) -> bytes | None:
        return None if network.content == (folder / "head-float.onnx").read_bytes() else build(self, network, config)

    monkeypatch.setattr(Builder, "build_serialized_network", no_head)
    assert tune(folder) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^head-float +qat +failed", printed, re.MULTILINE)
    assert re.search(r"^head-float: .*could not build the engine", printed, re.MULTILINE)
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", "default", "stem-int8"}
    monkeypatch.setattr(Builder, "build_serialized_network", build)
    before = trt.builds
    assert tune(folder) == 0 and trt.builds == before + 1


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


def test_an_engine_that_cannot_be_measured_is_timed(
    trt: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Meter):
        def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
            if name == "head-float":
                raise UserError("other classes")
            return super().__call__(engine, name)

    monkeypatch.setattr(cli_tune, "calibration_images", lambda source, count: None)
    assert tune(folder, meter=Refusing()) == 1
    printed = capsys.readouterr().out
    assert "head-float: other classes" in printed and "head-float" in recorded(folder)["timing"]["figures"]
    again = Meter(known=True)
    assert tune(folder, meter=again) == 0 and again.measured == ["head-float"]


def test_an_engine_that_is_refused_while_it_runs_leaves_the_others(
    trt: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(folder)
    plan = (folder / "plans" / "head-float.plan").read_bytes()
    trt.faults[plan] = lambda runs: runs == 1  # not the first: that is the capture's
    assert tune(folder, "--rounds", "3", "--no-cuda-graph") == 1
    printed = capsys.readouterr().out
    assert re.search(r"^head-float +qat +failed", printed, re.MULTILINE)
    assert re.search(r"^head-float: execution failed", printed, re.MULTILINE)
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", "default", "stem-int8"}
    trt.faults.clear()
    assert tune(folder, "--rounds", "3", "--no-cuda-graph") == 0 and trt.builds == 4  # it is tried again
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", *NAMES}


def losing(runs: int) -> bool:
    """The fault of an engine that ends CUDA when it runs first."""
    lose_cuda()
    return False


def test_the_same_command_goes_on_without_the_engine_that_ended_cuda(
    trt: Any, folder: Path, fake_cuda: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(folder) == 0
    trt.faults[(folder / "plans" / "head-float.plan").read_bytes()] = losing
    (folder / "tune.json").unlink()
    assert tune(folder) == 1
    printed = capsys.readouterr().out
    assert "head-float: cuda" in printed and "the same command goes on without head-float" in printed
    assert "stem-int8: not run" in printed and not recorded(folder)["timing"]["figures"]
    fake_cuda()  # a new process
    assert tune(folder) == 1 and trt.builds == 4
    printed = capsys.readouterr().out
    assert "head-float: left out, it ended CUDA in an earlier run (cudaS" in printed and "goes on" not in printed
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", "default", "stem-int8"}
    # another file is another engine
    change(folder, "head-float")
    list_as_it_is(folder, "head-float")
    assert tune(folder) == 0 and set(recorded(folder)["timing"]["figures"]) == {"fp16", *NAMES}


def test_an_engine_that_ends_cuda_while_it_is_measured(
    trt: Any,
    folder: Path,
    fake_cuda: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was measured before is kept, and so is what an earlier run knows of the engines behind it."""

    class Losing(Meter):
        def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
            if name == "default":
                lose_cuda()
                raise CudaError("cudaStreamSynchronize failed")
            return super().__call__(engine, name)

    monkeypatch.setattr(cli_tune, "calibration_images", lambda source, count: None)
    (folder / "calib").write_bytes(b"cache")
    assert tune(folder, meter=Meter()) == 0
    change(folder, "default")
    list_as_it_is(folder, "default")
    assert tune(folder, meter=Losing(known=True)) == 1
    printed = capsys.readouterr().out
    assert "default: cudaStreamSynchronize failed" in printed and "No engine could be timed" in printed
    assert "head-float: not run, since default ended CUDA" in printed
    fake_cuda()
    again = Meter(known=True)
    assert tune(folder, meter=again) == 1 and not again.measured
    assert set(recorded(folder)["timing"]["figures"]) == {"fp16", "ptq", *NAMES} - {"default"}


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
