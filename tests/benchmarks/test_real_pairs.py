"""Ways against each other, from files of samples: against the same by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_pairs import compare_ways, pair_lines
from real_tables import seed_counts

from quantization.errors import UserError
from quantization.evaluation.bootstrap import RESAMPLES


def samples(file: Path, seed: int, conditions: str = "9 images") -> np.ndarray:
    """A file of samples; its figures with all classes merged."""
    random = np.random.default_rng(seed)
    figures = {name: random.random(RESAMPLES + 1) for name in ("map", "map50", "merged")}
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": 1, "label": "x.pt", "conditions": conditions, "truth": "t"}
    np.savez(file, **facts, **figures, classes=random.random((RESAMPLES + 1, 2)))  # type: ignore[arg-type]
    return figures["merged"]


def test_seeds_are_compared_one_by_one(tmp_path: Path) -> None:
    apart = []
    for number, seed in enumerate(("0", "1", "10")):
        ours = samples(tmp_path / "results" / "a" / "qat-x" / seed / "torch.npz", 2 * number)
        theirs = samples(tmp_path / "results" / "a" / "qat-y" / seed / "torch.npz", 2 * number + 1)
        apart.append(100 * (ours - theirs))
    samples(tmp_path / "results" / "a" / "qat-x" / "2" / "torch.npz", 9)  # the other way has no such seed
    samples(tmp_path / "results" / "b" / "qat-x" / "0" / "square.npz", 9)
    found = compare_ways(tmp_path, ["a", "b"], "qat-x", "qat-y")
    assert list(found) == ["torch"] and list(found["torch"]) == ["a"]
    assert list(found["torch"]["a"]) == ["0", "1", "10"]
    for entry, values in zip(found["torch"]["a"].values(), apart):
        assert entry["merged"]["points"] == pytest.approx(values[0])
        assert entry["merged"]["plus_minus"] == pytest.approx(1.96 * values[1:].std(ddof=1))
    widths, points = [1.96 * values[1:].std(ddof=1) for values in apart], [values[0] for values in apart]
    width = np.sqrt(np.mean(np.square(widths)) + 1.96**2 * np.var(points, ddof=1) / 3)
    text = "\n".join(pair_lines({"x against y": found, "z against y": {}}, ["a", "b"]))
    assert "## Ways against each other, torch, classes merged\n" in text and "mean over classes" in text
    assert f"| x against y | 3 | {np.mean(points):+.2f} +- {width:.2f} |  |  |" in text
    assert "squares" not in text and text.endswith("\n\nWithout a seed that both have: z against y.")


def test_the_mean_over_sets(tmp_path: Path) -> None:
    for number, data in enumerate(("a", "b")):
        for way in ("qat-x", "qat-y"):
            samples(tmp_path / "results" / data / way / "0" / "onnxruntime.npz", 2 * number + (way == "qat-y"))
    found = compare_ways(tmp_path, ["a", "b"], "qat-x", "qat-y")
    a, b = (found["onnxruntime"][data]["0"]["merged"] for data in ("a", "b"))
    mean, width = (a["points"] + b["points"]) / 2, np.hypot(a["plus_minus"], b["plus_minus"]) / 2
    assert f" | {mean:+.2f} +- {width:.2f} |" in "\n".join(pair_lines({"x": found}, ["a", "b"]))


def test_other_conditions_are_refused(tmp_path: Path) -> None:
    samples(tmp_path / "results" / "a" / "qat-x" / "0" / "torch.npz", 0)
    samples(tmp_path / "results" / "a" / "qat-y" / "0" / "torch.npz", 1, "9 images, squares of 64")
    with pytest.raises(UserError, match="hold figures of other images or conditions"):
        compare_ways(tmp_path, ["a"], "qat-x", "qat-y")


def test_numbers_of_seeds() -> None:
    assert [seed_counts(groups) for groups in ([[1], [1]], [[1], [1, 2], [1, 2, 3]], [[], [1, 2]])] == [
        "1",
        "1 to 3",
        "2",
    ]
