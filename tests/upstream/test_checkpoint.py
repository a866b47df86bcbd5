"""Checkpoints written by version 0.1, before the package moved into rooms, load, compute the same and export. What is none is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable, Iterator

import onnx
import pytest
import torch

from quantization.errors import UserError
from quantization.upstream.checkpoint import load
from support.workflow import TASKS, run_python

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "checkpoints"


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_a_checkpoint_of_version_0_1_computes_the_same(name: str, checkouts: Callable[[str], Path]) -> None:
    file, arrays = FIXTURES / f"{name}-0.1.pt", FIXTURES / f"{name}-0.1.npz"
    done = run_python(checkouts(name), TASKS.with_name("upstream_tasks.py"), "forward", name, file, arrays)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["difference"] <= 1e-4 * result["largest"]
    assert result["modules"] == ["quantization.quantizers.modules", "quantization.quantizers.native"]
    assert {"groups", "options"} <= set(result["keys"])


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_a_checkpoint_of_version_0_1_exports(name: str, checkouts: Callable[[str], Path], tmp_path: Path) -> None:
    script, target = f"scripts/qat-{name}.py", tmp_path / "old.onnx"
    run_python(checkouts(name), script, "export", FIXTURES / f"{name}-0.1.pt", "--size", 64, "--save", target)
    graph = onnx.load(str(target)).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 10


@pytest.mark.parametrize(
    "name, complaint",
    [
        ("none.pt", "does not exist: check the path"),
        ("net.onnx", "is an ONNX: name the .pt .*quantize-onnx.py"),
        ("text.pt", "is no PyTorch checkpoint .*: name the .pt that train.py wrote"),
    ],
)
def test_what_is_no_checkpoint(name: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if not name.startswith("none"):
        file.write_text("hello")
    with pytest.raises(UserError, match=complaint):
        load(str(file), torch.device("cpu"), "yolov5")


@pytest.fixture
def checkout_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is imported as ``models``, in this test alone."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in own_modules():
        monkeypatch.delitem(sys.modules, name)
    yield folder
    for name in own_modules():
        del sys.modules[name]


def own_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "models"]


def test_a_package_that_the_checkout_needs_is_no_fault_of_the_weight(checkout_models: Path) -> None:
    file = checkout_models / "yolo.py"
    for code, kind, complaint in (
        ("import surely_not_installed\n", ModuleNotFoundError, "surely_not_installed"),
        ("from models import nothing\n", UserError, "was not saved by yolov5"),
        ("", UserError, "was not saved by yolov5"),  # a layer that is not there
    ):
        file.write_text(code)
        with pytest.raises(kind, match=complaint):
            load(str(FIXTURES / "yolov5-0.1.pt"), torch.device("cpu"), "yolov5")
