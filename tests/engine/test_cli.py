"""bench-engine.py's command line: engines, errors, dry run, calibration images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantization.engine import cli as bench_cli
from quantization.engine.calibration_images import calibration_images
from quantization.errors import UserError
from support.fake_tensorrt import fake_trt_fixture  # noqa: F401
from support.small_net import small_net
from support.workflow import SUPPORT

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench-engine.py"


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_calibration_images_from_an_array(tmp_path, kind):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 2, 2)).astype(kind)
    np.save(tmp_path / "a.npy", images)
    scale = 255 if kind is np.uint8 else 1
    calibration = calibration_images(str(tmp_path / "a.npy"), 4)
    batches = list(calibration.batches((3, 3, 2, 2)))
    assert [len(batch) for batch in batches] == [3, 1] and all(batch.dtype == np.float32 for batch in batches)
    assert np.allclose(np.concatenate(batches) * scale, images[[0, 2, 4, 6]])
    (tmp_path / "b.npy").write_bytes(b"not an array")
    np.save(tmp_path / "c.npy", images[0])
    for name in ("b.npy", "c.npy", "none.npy"):
        with pytest.raises(UserError, match="--calib-images"):
            calibration_images(str(tmp_path / name), 4)


@pytest.mark.parametrize(("module", "package"), [("PIL", "Pillow"), ("cv2", "opencv-python-headless")])
def test_the_package_that_is_missing_is_named(module, package, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith(("quantization.data", f"{module}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr(sys.modules["quantization"], "data", raising=False)
    with pytest.raises(UserError, match=rf"without {package} \(.*{module}.*\): pip install {package}, or give a \.npy"):
        calibration_images(str(tmp_path), 4)


def specs(*arguments):
    return bench_cli.make_specs(bench_cli.parser().parse_args(list(arguments)))


def test_engines_named_on_the_command_line():
    found = specs(
        "float.onnx",
        "--modes",
        "fp16,ptq",
        "--engine",
        "rule=qat:a:b.onnx",
        "--load-engine",
        "x/old.plan",
        "--load-engine",
        "new=y.plan",
        "--save-engine",
        "plans",
        "--batch",
        "16",
        "--calib-cache",
        "c",
        "--export-profile",
        "{name}-p.json",
    )
    assert [(spec.name, spec.mode, spec.onnx, spec.plan) for spec in found] == [
        ("fp16", "fp16", "float.onnx", "plans/fp16-b16.plan"),
        ("ptq", "ptq", "float.onnx", "plans/ptq-b16.plan"),
        ("rule", "qat", "a:b.onnx", "plans/rule-b16.plan"),
        ("old", "loaded", None, "x/old.plan"),
        ("new", "loaded", None, "y.plan"),
    ]
    assert [spec.options.calib_cache for spec in found] == [None, "c", None, None, None]
    assert found[2].profile == "rule-p.json"
    assert bench_cli.choose_reference(found, None) == "ptq" and bench_cli.choose_reference(found[2:], None) == "rule"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "no engine named"),
        (["a.onnx", "--modes", "fp32"], "mode 'fp32'"),
        (["--modes", "fp16"], "--modes"),
        (["--engine", "a.onnx"], "NAME=MODE:FILE"),
        (["a.onnx", "--engine", "fp16=qat:b.onnx"], "two engines"),
        (["--engine", "a/b=qat:b.onnx"], "slash"),
        (["a.onnx", "--modes", "fp16,qat", "--export-profile", "p.json"], "{name}"),
        (["a.onnx", "--modes", "ptq", "--engine", "b=ptq:b.onnx", "--calib-cache", "c"], "{name}"),
        (["a.onnx", "--reference", "x"], "--reference"),
        (["a.onnx", "--build-only"], "--save-engine"),
        (["a.onnx", "--max-shapes", "images:1x3x8x8"], "--shapes"),
        (["a.onnx", "--use-trtexec", "--batch", "2"], "--shapes"),
        (["--load-engine", "a.plan", "--dry-run", "--trt-version", "10.3", "--batch", "2"], "--shapes"),
        (["a.onnx", "--dry-run", "--trt-version", "10.3"], "a.onnx does not exist"),
        (["a.onnx", "--trt-version", "8.6"], "--dry-run"),
        (["a.onnx", "--dry-run", "--trt-version", "8.0"], "--trt-version 8.0 is no TensorRT version from 8.5 to 11"),
        (["a.onnx", "--dry-run", "--trt-version", "10.3rc"], "--trt-version 10.3rc"),
        (
            ["--load-engine", "a.plan", "--no-tf32", "--save-engine", "d"],
            "--no-tf32, --save-engine would have no effect",
        ),
        (["a.onnx", "--calib-images", "d", "--calib-cache", "c"], "--calib-images, --calib-cache would have no effect"),
        (
            ["a.onnx", "--modes", "ptq", "--calib-count", "3"],
            "--calib-count would have no effect without --calib-images",
        ),
        (
            ["a.onnx", "--build-only", "--save-engine", "d", "--export-profile", "p", "--no-spin-wait"],
            "--no-spin-wait, --export-profile would have no effect without timing",
        ),
        (["a.onnx", "--modes", "ptq", "--use-trtexec", "--calib-images", "d"], "without TensorRT's Python package"),
        (["a.onnx", "--dry-run", "--json", "j"], "--json would have no effect without a run"),
    ],
)
def test_argument_errors(arguments, words):
    with pytest.raises(UserError) as error:
        bench_cli.main(arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.onnx", "--engine", "b=qat:b.onnx"], "b.onnx does not exist: name an ONNX file"),
        (["a.onnx", "--load-engine", "b.plan"], "b.plan does not exist: name a plan file"),
        (["a.onnx", "--json", "a.onnx"], "--json: a.onnx would be overwritten"),
        (["a.onnx", "--json", "x", "--timing-cache", "x"], "--timing-cache: x would be overwritten"),
        (["a.onnx", "--export-profile", "x", "--export-layer-info", "x"], "--export-profile: x would be overwritten"),
        (["a.onnx", "--save-engine", ".", "--load-engine", "old=fp16.plan"], "--save-engine: ./fp16.plan would be"),
        (["a.onnx", "--export-profile", "a.onnx/x"], "--export-profile a.onnx/x cannot be written"),
    ],
)
def test_files_are_checked_before_tensorrt_is_looked_for(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_cli.versions, "import_tensorrt", lambda: pytest.fail("too late"))
    small_net(tmp_path / "a.onnx", 1)
    (tmp_path / "fp16.plan").write_bytes(b"plan")
    with pytest.raises(UserError, match=re.escape(words)):
        bench_cli.main(arguments)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "fp16.plan"]


def test_no_engine_is_built_if_another_cannot_be(fake_trt, tmp_path, monkeypatch):
    fake_trt()
    monkeypatch.setattr(bench_cli.bench, "Cuda", lambda **_: pytest.fail("too late"))
    small_net(tmp_path / "a.onnx", 1)
    command = [str(tmp_path / "a.onnx"), "--modes"]
    with pytest.raises(UserError, match="mode ptq needs images"):
        bench_cli.main([*command, "fp16,ptq"])
    fake_trt(version="11.0.0")
    with pytest.raises(UserError, match="no implicit INT8 calibration"):
        bench_cli.main([*command, "fp16,ptq"])


def test_dry_run_needs_neither_tensorrt_nor_torch(tmp_path):
    command = [sys.executable, str(SUPPORT / "without.py"), "tensorrt,torch", "script", str(SCRIPT)]
    small_net(tmp_path / "a.onnx", 1)
    small_net(tmp_path / "b c.onnx", 1, quantized=True)
    arguments = ["a.onnx", "--modes", "fp16,ptq", "--engine", "rule=qat:b c.onnx"]
    done = subprocess.run(
        [*command, *arguments, "--dry-run", "--trt-version", "10.3"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith("trtexec --onnx=a.onnx --fp16 --profiling")
    assert lines[2].startswith("trtexec '--onnx=b c.onnx' --fp16 --int8")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: the Python package tensorrt cannot be imported")
    assert len(done.stderr.splitlines()) == 1
