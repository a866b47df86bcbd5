"""A network through its checkout and through its float ONNX: the same groups, and the same ranges of the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from quantization.onnx_quantize.float_model import FloatModel
from quantization.onnx_quantize.options import OnnxCalibrationOptions
from quantization.onnx_quantize.plan import place_names
from quantization.onnx_quantize.quantize import calibrate_onnx, plan_onnx, write_pairs
from quantization.options import LayerOptions
from quantization.preflight.report import preflight
from support.workflow import SUPPORT, run_task

SIDE, BATCH = 128, 3


def test_checkout_and_onnx_give_one_result(checkouts: Callable[[str], Path], tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2 * BATCH, 3, SIDE, SIDE), dtype=np.float32)
    array, file = tmp_path / "images.npy", tmp_path / "float.onnx"
    np.save(array, images)
    theirs = run_task(
        checkouts("yolov5"), "yolov5", "models/yolov5n.yaml", array, BATCH, file, program=SUPPORT / "onnx_tasks.py"
    )

    source = FloatModel(str(file))
    graph, plan = plan_onnx(source, (3, SIDE, SIDE), LayerOptions())
    batches = [images[:BATCH], images[BATCH:]]
    found = calibrate_onnx(source, (graph, plan), batches, len(images), OnnxCalibrationOptions())
    assert found.method == "mse"  # as theirs
    assert not preflight(write_pairs(source, found)).failed

    def as_checkout(place: str) -> str:
        """A sum has no module in the float network: its nodes go by the block that holds it."""
        path, _, operand = place.partition(":")
        is_sum = f"{path}.addop" in sums
        return path + (".addop" if is_sum else "") + (f":{operand}" if operand else "")

    sums = {place for places, _ in theirs for place in places if place.endswith(".addop")}
    ours = {
        frozenset(map(as_checkout, place_names(graph, reads))): scale.amax
        for reads, scale in zip(found.groups, found.scales)
    }
    expected = {frozenset(places): amax for places, amax in theirs}
    assert set(ours) == set(expected) and len(ours) == 51 and len(sums) == 7
    # to rounding; random weights leave ranges of equal error, between which rounding then chooses: some bins of 2048
    differences = [abs(ours[group] / expected[group] - 1) for group in expected]
    assert sum(difference < 1e-5 for difference in differences) > 0.75 * len(ours) and max(differences) < 0.02
