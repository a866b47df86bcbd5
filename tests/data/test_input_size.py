"""The size of a network's input: its own, or what is asked for where it is open; a contradiction is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantization.cli.commands import test_command as run_test
from quantization.cli.onnx_command import run_onnx_command
from quantization.cli.options import EvaluationCommand
from quantization.cli.parser import parse
from quantization.cli.predict import main as run_predict
from quantization.data.input_size import FixedSize, input_size
from quantization.errors import UserError
from quantization.options import DEFAULT_SIDE
from support.drawn_data import NAMES, SIDE, Drawn
from support.perfect_detector import perfect_detector
from support.workflow import load_script


@pytest.mark.parametrize(
    "fixed, asked, found",
    [
        ((None, None), None, (640, 640)),
        ((None, None), 320, (320, 320)),
        ((320, 640), None, (320, 640)),
        ((320, 640), 640, (320, 640)),
        ((None, 640), 320, (320, 640)),
    ],
)
def test_sizes(fixed: FixedSize, asked: int | None, found: tuple[int, int]) -> None:
    assert input_size(fixed, asked, "net.onnx") == found


@pytest.mark.parametrize("asked", [320, 641])
def test_a_contradiction_names_both(asked: int) -> None:
    with pytest.raises(UserError, match=rf"--imgsz {asked}: net.onnx takes 320 x 640 alone"):
        input_size((320, 640), asked, "net.onnx")


@pytest.mark.parametrize("asked", [2 * SIDE, DEFAULT_SIDE])
@pytest.mark.parametrize("script", ["test", "eval-engine", "predict", "quantize-onnx"])
def test_every_script_refuses_it(script: str, asked: int, tmp_path: Path) -> None:
    """The default too, where it is typed."""
    data = Drawn(tmp_path / "data")
    data.finish()
    file = str(perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES)))
    np.save(tmp_path / "images.npy", np.zeros((1, 3, SIDE, SIDE), np.uint8))
    words = [file, "--imgsz", str(asked)]
    with pytest.raises(UserError, match=rf"--imgsz {asked}: .*net\.onnx takes {SIDE} x {SIDE} alone"):
        if script == "test":
            _, options = parse("yolov5", ["test", *words, "--cocodir", str(data.root)])
            assert isinstance(options, EvaluationCommand)
            run_test("yolov5", options)
        elif script == "quantize-onnx":
            run_onnx_command([*words, "--images", str(tmp_path / "images.npy")])
        elif script == "predict":
            run_predict([*words, "--cocodir", str(data.root), "--out", str(tmp_path / "out")])
        else:
            load_script("eval-engine").main([*words, "--cocodir", str(data.root)])
