"""Files that an option names are checked before any work, in all scripts: what is read, and what is written at the end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from quantization.cli import commands, onnx_command, predict
from quantization.cli.parser import parse
from quantization.errors import UserError
from support.small_net import small_net
from support.workflow import load_script

Run = Callable[[list[str]], int]


def no_work(*given: Any, **named: Any) -> Any:
    """Stands for the first thing that takes time."""
    raise AssertionError("too late")


def of_qat(command: str) -> Run:
    def run(words: list[str]) -> int:
        return commands.TABLE[command](*("yolov5", parse("yolov5", [command, *words])[1]))

    return run


def of_script(name: str, work: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    script = load_script(name)
    monkeypatch.setattr(script, work, no_work)
    run: Run = script.main
    return run


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """What runs each command, as far as its first work."""
    monkeypatch.setattr(commands.checkpoint, "load", no_work)
    monkeypatch.setattr(commands, "OnnxPredictor", no_work)
    monkeypatch.setattr(onnx_command, "plan_onnx", no_work)
    monkeypatch.setattr(predict, "_detectors", no_work)
    return {
        "test": of_qat("test"),
        "sensitive": of_qat("sensitive"),
        "quantize-onnx": onnx_command.run_onnx_command,
        "predict": predict.main,
        "eval-engine": of_script("eval-engine", "open_network", monkeypatch),
        "check-onnx": of_script("check-onnx", "load_onnx", monkeypatch),
        "draw-engine": of_script("draw-engine", "load_layers", monkeypatch),
    }


@pytest.mark.parametrize(
    "line, message",
    [
        ("test w.pt --cocodir none --against none.npz", "--against none.npz cannot be read"),
        ("test w.pt --cocodir none --against text", "--against text is no file of samples"),
        ("test w.pt --cocodir none --against array.npy", "--against array.npy is no file of samples"),
        ("test w.pt --cocodir none --save-json folder", "--save-json folder is a folder"),
        ("test w.pt --cocodir none --save-samples text/x.npz", "--save-samples text/x.npz cannot be written"),
        ("test w.pt --cocodir none --save-samples text --against text", "--save-samples: text would be overwritten"),
        ("test net.onnx --cocodir none", "--cocodir none is not a folder"),
        ("sensitive w.pt --cocodir none --summary folder", "--summary folder is a folder"),
        ("sensitive w.pt --cocodir none --summary picture.json", "--summary picture.png is a folder"),
        ("quantize-onnx net.onnx --images folder", "folder"),
        ("quantize-onnx net.onnx --images none", "none does not exist"),
        ("quantize-onnx net.onnx --data none.yaml", "--data none.yaml does not exist"),
        ("quantize-onnx net.onnx --images array.npy --summary folder", "--summary folder is a folder"),
        ("quantize-onnx net.onnx --images array.npy --save array.npy", "--save: array.npy would be overwritten"),
        ("predict net.onnx --data none.yaml", "--data none.yaml does not exist"),
        ("predict net.onnx --cocodir none", "--cocodir none is not a folder"),
        ("predict net.onnx none.png", "none.png"),
        ("predict net.onnx picture.png --out text", "--out text exists already"),
        ("eval-engine net.onnx --data none.yaml", "--data none.yaml does not exist"),
        ("eval-engine net.pt --data none.yaml", "net.pt is a checkpoint: evaluate it by the command test"),
        ("eval-engine text --data none.yaml --onnx none.onnx", "none.onnx does not exist: name the ONNX of the engine"),
        ("eval-engine net.onnx --data none.yaml --against text", "--against text is no file of samples"),
        ("eval-engine net.onnx --data none.yaml --save-json folder", "--save-json folder is a folder"),
        ("eval-engine net.onnx --data none.yaml --save-samples net.onnx", "--save-samples: net.onnx would be"),
        ("check-onnx net.onnx --json net.onnx", "--json: net.onnx would be overwritten"),
        ("check-onnx net.onnx --draw text/x.svg", "--draw text/x.svg cannot be written"),
        ("draw-engine --layer text --output text --format svg", "--output: text would be overwritten"),
        ("draw-engine --layer text --output text/x.svg", "--output text/x.svg cannot be written"),
    ],
)
def test_files_come_before_work(
    line: str, message: str, scripts: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_net(Path("net.onnx"), 1)
    Path("text").write_text("nothing that anyone reads")
    np.save("array.npy", np.zeros((1, 3, 8, 8), np.uint8))
    for folder in ("folder", "picture.png"):
        Path(folder).mkdir()
    before = sorted(tmp_path.iterdir())
    command, *words = shlex.split(line)
    with pytest.raises(UserError) as caught:
        scripts[command](words)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
