"""The lines of --dry-run against what a build on a stand-in for TensorRT announces."""

from __future__ import annotations

import shlex
import types
from pathlib import Path

import pytest

from quantization.engine import cli as bench_cli
from quantization.engine.build import build_engine
from quantization.engine.options import BuildOptions, ShapeRange
from quantization.engine.trtexec import build_flags
from quantization.errors import UserError
from support.fake_tensorrt import fake_trt_fixture  # noqa: F401
from support.small_net import small_net

LARGEST = ("--max-shapes", "images:8x3x8x8")


def lines(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[list[list[str]], list[str]]:
    """Words of each line, and the notes."""
    assert bench_cli.main([*map(str, words), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    return [shlex.split(line) for line in out.splitlines()], err.splitlines()


def test_the_shapes_of_an_open_batch_come_from_the_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small_net(tmp_path / "net.onnx", "batch")
    for words, shape in (([], "1x3x8x8"), (["--batch", 16], "16x3x8x8"), (["--shapes", "images:4x3x8x8"], "4x3x8x8")):
        ((found,), _) = lines(capsys, file, "--trt-version", "8.6", *words)
        assert f"--shapes=images:{shape}" in found
    ((found,), _) = lines(capsys, file, "--trt-version", "8.6", "--shapes", "images:2x3x8x8", *LARGEST)
    assert {"--minShapes=images:2x3x8x8", "--optShapes=images:2x3x8x8", "--maxShapes=images:8x3x8x8"} <= set(found)
    ((found,), _) = lines(capsys, small_net(tmp_path / "one.onnx", 1), "--trt-version", "8.6")
    assert not any(word.startswith("--shapes") for word in found)
    with pytest.raises(UserError, match="is static"):
        bench_cli.main([str(tmp_path / "one.onnx"), "--trt-version", "8.6", "--batch", "2", "--dry-run"])


def test_the_engine_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = small_net(tmp_path / "net.onnx", 1)
    ((found,), _) = lines(capsys, file, "--trt-version", "8.6", "--workspace", 2048)
    assert "--saveEngine=fp16.plan" in found and "--memPoolSize=workspace:2048" in found
    ((found,), _) = lines(capsys, file, "--trt-version", "8.6", "--save-engine", tmp_path / "plans")
    assert f"--saveEngine={tmp_path / 'plans' / 'fp16.plan'}" in found


def test_each_version_has_its_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = small_net(tmp_path / "net.onnx", 1, quantized=True)
    half = small_net(tmp_path / "half.onnx", 1, quantized=True, half=True)
    for version in ("8.5", "10.3"):
        ((found,), notes) = lines(capsys, plain, "--modes", "qat", "--trt-version", version)
        assert {"--fp16", "--int8"} <= set(found) and not notes
    ((found,), notes) = lines(capsys, plain, "--modes", "qat", "--trt-version", "10.13")
    assert "--int8" in found and "deprecated from TensorRT 10.12" in notes[0]
    ((found,), notes) = lines(capsys, plain, "--modes", "qat", "--trt-version", "11.0")
    assert not {"--fp16", "--int8", "--stronglyTyped"} & set(found)
    assert "has no FP16 tensor" in notes[0] and "--fp16-remainder" in notes[0]
    ((found,), notes) = lines(capsys, half, "--modes", "qat", "--trt-version", "11.0")
    assert not notes
    ((found,), notes) = lines(capsys, half, "--modes", "qat", "--trt-version", "10.13", "--strongly-typed")
    assert "--stronglyTyped" in found and not notes
    ((found,), notes) = lines(capsys, half, "--modes", "qat", "--trt-version", "8.6")
    assert "has opset 19, and TensorRT 8.6 documents 17 at most: export it with --target-tensorrt 8.6" in notes[0]
    ((found,), notes) = lines(capsys, small_net(tmp_path / "f.onnx", 1), "--modes", "ptq", "--trt-version", "8.6")
    assert "random scales" in notes[0]
    (tmp_path / "cache").touch()
    words = ("--modes", "ptq", "--calib-cache", tmp_path / "cache")
    ((found,), notes) = lines(capsys, tmp_path / "f.onnx", *words, "--trt-version", "8.6")
    assert f"--calib={tmp_path / 'cache'}" in found and not notes


@pytest.mark.parametrize(
    ("quantized", "mode", "version", "words"),
    [
        (True, "fp16", "8.6", "holds Q/DQ nodes"),
        (False, "qat", "8.6", "holds no Q/DQ nodes"),
        (False, "fp16", "11.0", "is all FP32"),
        (False, "ptq", "11.0", "no implicit INT8 calibration"),
    ],
)
def test_what_a_build_would_refuse(tmp_path: Path, quantized: bool, mode: str, version: str, words: str) -> None:
    file = small_net(tmp_path / "net.onnx", 1, quantized)
    with pytest.raises(UserError, match=words):
        bench_cli.main([str(file), "--modes", mode, "--trt-version", version, "--dry-run"])


def test_the_line_is_that_of_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str], fake_trt) -> None:
    fake_trt(version="8.6.0")
    file = small_net(tmp_path / "net.onnx", "batch", side=4)  # which the stand-in's parser takes every file for
    (tmp_path / "cache").write_bytes(b"cache scales")
    options = BuildOptions("ptq", batch=5, calib_cache=str(tmp_path / "cache"))
    cuda = types.SimpleNamespace(malloc=lambda size: 64, free=lambda pointer: None, upload=lambda pointer, array: None)
    announced: list[dict[str, ShapeRange]] = []
    build_engine(str(file), options, cuda, announce=announced.append)
    capsys.readouterr()
    words = ["--modes", "ptq", "--batch", 5, "--calib-cache", tmp_path / "cache"]
    ((found,), _) = lines(capsys, file, *words, "--trt-version", "8.6.0")
    flags = build_flags(options, (8, 6, 0), announced[0])
    assert "--shapes=images:5x3x4x4" in flags and [word for word in found if word in flags] == flags
