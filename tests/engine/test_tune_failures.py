"""bench-engine.py --tune where an engine fails: to be built, measured or run, alone or with CUDA for all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.engine import cli_tune
from quantization.engine.cuda import CudaError
from quantization.engine.runtime import Engine
from quantization.errors import UserError
from support.fake_tensorrt import Builder, fake_cuda_fixture, fake_trt_fixture, lose_cuda  # noqa: F401
from support.tuning import NAMES, Meter, change, folder_fixture, list_as_it_is, recorded, trt_fixture, tune  # noqa: F401


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
