"""benchmarks/box_errors.py: which columns come from which net."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from box_errors import MIXTURES, mixture  # noqa: E402


def test_each_mixture_takes_its_columns_from_the_quantized_net() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, 3, 4, 4))
    outputs = {"float": rng.random((2, 5, 9)), "quantized": rng.random((2, 5, 9))}
    before = outputs["float"].copy()
    expected = {
        "float": "fffffffff",
        "quantized": "qqqqqqqqq",
        "quantized boxes": "qqqqfffff",
        "quantized centres": "qqfffffff",
        "quantized sides": "ffqqfffff",
        "quantized scores": "ffffqqqqq",
    }
    assert set(MIXTURES) == set(expected)
    for name, columns in MIXTURES.items():
        mixed = mixture(lambda given: outputs["float"], lambda given: outputs["quantized"], columns)(images)
        for column, source in enumerate(expected[name]):
            wanted = outputs["quantized" if source == "q" else "float"]
            assert np.array_equal(mixed[..., column], wanted[..., column]), (name, column)
    assert np.array_equal(outputs["float"], before)  # the predictor's own array is left alone


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "float.pt"
    result = subprocess.run(
        [
            sys.executable,
            str(BENCHMARKS / "box_errors.py"),
            "--upstream",
            "yolov5",
            "--checkout",
            str(tmp_path),
            "--weight",
            str(missing),
            "--ptq",
            str(missing),
            "--",
            "--cocodir",
            "x",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and result.stderr == f"error: {missing} does not exist\n"
