"""What quantizing costs in squares against rectangles, from files of samples: against the same by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_runtimes import compare_runtimes, runtime_lines

from quantization.errors import UserError
from quantization.evaluation.bootstrap import RESAMPLES


def samples(file: Path, seed: int, conditions: str, truth: str = "t") -> np.ndarray:
    """A file of samples; its figures with all classes merged."""
    random = np.random.default_rng(seed)
    figures = {name: random.random(RESAMPLES + 1) for name in ("map", "map50", "merged")}
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": 1, "label": "x.pt", "conditions": conditions, "truth": truth}
    np.savez(file, **facts, **figures, classes=random.random((RESAMPLES + 1, 2)))  # type: ignore[arg-type]
    return figures["merged"]


def test_each_shape_is_compared_with_float_in_that_shape(tmp_path: Path) -> None:
    apart = []
    for number, data in enumerate(("a", "b")):
        folder = tmp_path / "results" / data
        square, rectangles = (
            samples(folder / "ptq-x" / "0" / f"{name}.npz", 4 * number + offset, name)
            - samples(folder / "float" / f"{name}.npz", 4 * number + offset + 2, name)
            for offset, name in enumerate(("square", "torch"))
        )
        apart.append(100 * (square - rectangles))
    samples(folder / "ptq-x" / "1" / "square.npz", 9, "square")  # has no rectangles
    found = compare_runtimes(tmp_path, ["a", "b"], "square", "torch")
    assert {way: {data: list(seeds) for data, seeds in sets.items()} for way, sets in found.items()} == {
        "ptq-x": {"a": ["0"], "b": ["0"]}
    }
    widths = [1.96 * values[1:].std(ddof=1) for values in apart]
    for data, values, width in zip("ab", apart, widths):
        assert found["ptq-x"][data]["0"]["merged"]["points"] == pytest.approx(values[0])
        assert found["ptq-x"][data]["0"]["merged"]["plus_minus"] == pytest.approx(width)
    text = "\n".join(runtime_lines({"squares against rectangles": found, "nothing": {}}, ["a", "b"]))
    assert "## Changes in squares against rectangles, classes merged\n" in text and "nothing" not in text
    assert f" | {(apart[0][0] + apart[1][0]) / 2:+.2f} +- {np.hypot(*widths) / 2:.2f} |" in text


def test_other_images_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "a"
    for name, truth in (("torch", "t"), ("square", "u")):
        samples(folder / "float" / f"{name}.npz", 0, name, truth)
        samples(folder / "ptq-x" / "0" / f"{name}.npz", 1, name, truth)
    with pytest.raises(UserError, match=r"square\.npz and torch\.npz hold figures of other images"):
        compare_runtimes(tmp_path, ["a"], "square", "torch")
    samples(folder / "float" / "torch.npz", 0, "other shape", "u")
    samples(folder / "ptq-x" / "0" / "torch.npz", 1, "torch", "u")
    with pytest.raises(UserError, match="hold figures of other images or conditions"):
        compare_runtimes(tmp_path, ["a"], "square", "torch")
