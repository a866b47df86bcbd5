"""A benchmark that trtexec does, on a stand-in for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from quantization.engine import cli as bench_cli
from quantization.engine import trtexec
from quantization.errors import UserError

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "fake_trtexec.py"


@pytest.fixture
def fake_trtexec(tmp_path, monkeypatch):
    program = tmp_path / "trtexec"
    program.write_text(f"#!{sys.executable}\n" + PROGRAM.read_text())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    for name in ("float.onnx", "qat.onnx"):
        Path(name).write_bytes(b"model")
    return tmp_path


def test_trtexec_builds_then_times_in_interleaved_rounds(fake_trtexec, capsys):
    out = fake_trtexec / "r.json"
    assert (
        bench_cli.main(
            [
                "float.onnx",
                "--modes",
                "fp16",
                "--engine",
                "rule=qat:qat.onnx",
                "--use-trtexec",
                "--save-engine",
                str(fake_trtexec / "qat"),
                "--json",
                str(out),
                "--rounds",
                "2",
            ]
        )
        == 0
    )
    calls = (fake_trtexec / "calls.txt").read_text().splitlines()
    assert "--buildOnly" in calls[0] and "--onnx=float.onnx" in calls[0] and "--int8" in calls[1]
    plans = [call.split()[0].rsplit("/", 1)[1] for call in calls[2:]]
    assert plans == ["fp16.plan", "rule.plan", "rule.plan", "fp16.plan"]
    report = json.loads(out.read_text())
    assert report["batch"] == 16 and report["gpu"] == "Orin" and report["versions"] == {"trtexec": "8.5.2"}
    assert report["engines"][0]["latency_ms"]["median"] == 5 and report["engines"][0]["rounds"][0]["p99_ms"] == 70


def test_a_build_that_fails_leaves_the_others(fake_trtexec, capsys):
    out = fake_trtexec / "r.json"
    for name in ("broken.onnx", "good.onnx"):
        (fake_trtexec / name).write_bytes(b"model")
    engines = [f"{fake_trtexec}/broken.onnx", "--modes", "fp16", "--engine", f"rule=qat:{fake_trtexec}/good.onnx"]
    assert bench_cli.main([*engines, "--use-trtexec", "--json", str(out), "--rounds", "2"]) == 1
    report = json.loads(out.read_text())
    assert report["reference"] == "rule" and report["failed_reference"] == "fp16"
    assert "ModelImporter" in report["engines"][0]["problem"] and len(report["engines"][1]["rounds"]) == 2
    assert "fp16, the reference, failed: ratios are to rule" in capsys.readouterr().out


def test_an_engine_that_does_not_run_leaves_the_others(fake_trtexec, capsys):
    out = fake_trtexec / "r.json"
    engines = ("--engine", "crashing=fp16:float.onnx", "--engine", "rule=qat:qat.onnx")
    words = ("--use-trtexec", "--json", str(out), "--rounds", "2", "--save-engine", "plans")
    assert bench_cli.main([*engines, *words]) == 1
    report = json.loads(out.read_text())
    crashing, rule = report["engines"]
    assert "illegal memory access" in crashing["problem"] and "qps" not in crashing
    assert len(rule["rounds"]) == 2 and report["reference"] == "rule" and report["batch"] == 16
    timed = [call for call in (fake_trtexec / "calls.txt").read_text().splitlines() if "loadEngine" in call]
    assert len(timed) == 3  # the one that failed is not tried again
    assert bench_cli.main([*engines[:2], *words]) == 1 and "batch" not in json.loads(out.read_text())


def test_trtexec_errors(fake_trtexec, monkeypatch):
    with pytest.raises(UserError, match="--opt-level"):  # refused before trtexec would
        bench_cli.main(["float.onnx", "--use-trtexec", "--opt-level", "3"])
    with pytest.raises(UserError, match=r"Unknown option: new in 8\.6"):
        trtexec.run_trtexec([str(fake_trtexec / "trtexec"), "--skipInference"])
    with pytest.raises(UserError, match="does not exist"):
        bench_cli.main(["float.onnx", "--modes", "ptq", "--use-trtexec", "--calib-cache", str(fake_trtexec / "none")])
    with pytest.raises(UserError, match="no performance summary"):
        trtexec.parse_performance("Throughput: 5 qps")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(trtexec, "JETPACK_FOLDER", str(fake_trtexec / "none"))
    with pytest.raises(UserError, match="neither on the PATH"):
        bench_cli.main(["float.onnx", "--use-trtexec"])
