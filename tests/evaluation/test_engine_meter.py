"""The mAP of tuned engines, and their difference to FP16's, on a network that finds every box or is made to err."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantization.engine.variant_folder import VariantFolder
from quantization.evaluation.engine_meter import EngineMeter
from support.drawn_data import NAMES, SIDE, Drawn
from support.perfect_detector import perfect_detector
from support.stand_in_engine import StandIn

FOLDER = VariantFolder("yolov5", (SIDE, SIDE), tuple(NAMES), 0.6, ())


def narrower(outputs: dict[str, np.ndarray]) -> None:
    """What hurts every box."""
    outputs["outputs"][..., 2] *= 0.8


def test_engines_are_measured_and_compared_with_the_reference(tmp_path: Path) -> None:
    data = Drawn(tmp_path / "data")
    data.finish()
    right: Any = StandIn(str(perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES))))
    wrong: Any = StandIn(str(tmp_path / "net.onnx"))
    wrong.corrupt = narrower
    samples, source = str(tmp_path / "fp16.npz"), str(data.root / "data.yaml")
    meter = EngineMeter(FOLDER, source, samples)
    assert not meter.knows_reference()
    assert "points" not in meter(wrong, "early")  # the reference failed to build
    reference = meter(right, "fp16")
    assert reference["map"] == pytest.approx(1) and "points" not in reference
    worse = meter(wrong, "head-float")
    assert worse["map"] < 0.95
    assert worse["points"] == pytest.approx(100 * (worse["map"] - 1)) and worse["plus_minus"] > 0
    # a run that goes on reads what the reference found
    again = EngineMeter(FOLDER, source, samples)
    assert again.key == meter.key and again.knows_reference()
    assert again(wrong, "head-float") == worse
    Path(samples).write_bytes(b"cut off")
    assert not EngineMeter(FOLDER, source, samples).knows_reference()


def test_other_annotations_have_another_key(tmp_path: Path) -> None:
    keys = set()
    for seed in (0, 1):
        data = Drawn(tmp_path / str(seed), seed=seed)
        data.finish()
        keys.add(EngineMeter(FOLDER, str(data.root / "data.yaml"), str(tmp_path / "none.npz")).key)
    assert len(keys) == 2
