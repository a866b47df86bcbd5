"""scripts/check-onnx.py: exit codes, refusals, JSON and picture, where torch cannot be imported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from quantization.errors import UserError
from quantization.preflight.drawing import to_dot
from quantization.preflight.report import preflight
from support.qdq_net import Net, pyramid
from support.workflow import SUPPORT

ROOT = Path(__file__).resolve().parents[2]


def test_refusals() -> None:
    float_net = Net()
    float_net.head("images")
    with pytest.raises(UserError, match="float one"):
        preflight(float_net.model())
    node = helper.make_node("QLinearConv", ["x"] * 8, ["y"])
    with pytest.raises(UserError, match="QLinearConv"):
        preflight(helper.make_model(helper.make_graph([node], "g", [], [])))


def run_script(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The script where torch cannot be imported."""
    program = [str(SUPPORT / "without.py"), "torch", "script", str(ROOT / "scripts" / "check-onnx.py")]
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_script(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    onnx.save(pyramid("torchscript"), str(good))
    onnx.save(pyramid("torchscript", (0.1, 0.2)), str(bad))
    done = run_script(good, "--json", tmp_path / "good.json")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("Preflight passed")
    assert json.loads((tmp_path / "good.json").read_text(encoding="utf-8"))["passed"] is True
    assert run_script(bad).returncode == 1
    for arguments in ((tmp_path / "no.onnx",), (good, "--draw", tmp_path / "x.txt"), (__file__,)):
        done = run_script(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_reader_that_goes_costs_no_file(tmp_path: Path) -> None:
    onnx.save(pyramid("torchscript", (0.1, 0.2)), str(tmp_path / "bad.onnx"))
    script = [sys.executable, str(ROOT / "scripts" / "check-onnx.py"), str(tmp_path / "bad.onnx")]
    process = subprocess.Popen(
        [*script, "--json", str(tmp_path / "bad.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 1)
    assert json.loads((tmp_path / "bad.json").read_text(encoding="utf-8"))["passed"] is False


def test_picture(tmp_path: Path) -> None:
    dot = to_dot(pyramid("torchscript", (0.1, 0.2)))
    assert dot.count("shape=diamond") == 4  # as many as conversions, each on the way of one read
    assert len(re.findall(r"\bconversion\d+ -> ", dot)) == 4
    assert 'label="model.8\\nConv\\nfloat"' in dot and "model.4\\nConv\\ngroup 1" in dot
    net = Net()
    y = net.conv(net.conv("images", "model.0"), "model.9", None, act="")
    net.outputs.append((net.op("Transpose", [net.op("Sigmoid", [y])], perm=[0, 2, 3, 1]), 4))
    dot = to_dot(net.model())
    assert "-> decode" in dot and "Transpose" not in dot  # what is behind the head is one box
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    onnx.save(pyramid("dynamo"), str(tmp_path / "net.onnx"))
    assert run_script(tmp_path / "net.onnx", "--draw", tmp_path / "net.svg").returncode == 0
    assert "<svg" in (tmp_path / "net.svg").read_text(encoding="utf-8")
