"""Charts of the report: heights, and labels apart from each other."""

from __future__ import annotations

import re

import pytest

from quantization.report.charts import LINE_HEIGHT, apart, curve_svg


def test_labels_of_the_curve_do_not_overlap() -> None:
    for heights in ([10.0, 10.0, 10.0], [225.0, 225.0, 224.0], [100.0, 50.0, 52.0]):
        placed = [height for height, _ in apart([(height, "") for height in heights])]
        gaps = [after - before for before, after in zip(placed, placed[1:])]
        assert all(gap >= LINE_HEIGHT - 1e-9 for gap in gaps)
        assert max(placed) <= 226 + 1e-9 and min(placed) >= 0


def test_the_curve_is_at_the_heights_of_its_figures() -> None:
    maps = [0.30, 0.31, 0.33, 0.32]
    content = {"qat": {"epochs": [{"epoch": n + 1, "map": value} for n, value in enumerate(maps)]}}
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="(\d)"', curve_svg(content))
    heights = [float(height) for _, height, _ in dots]
    slope = (heights[1] - heights[0]) / (maps[1] - maps[0])
    assert slope < 0 and [float(x) for x, _, _ in dots] == sorted(float(x) for x, _, _ in dots)
    for height, value in zip(heights, maps):
        assert height == pytest.approx(heights[0] + slope * (value - maps[0]), abs=0.3)
    assert [radius for _, _, radius in dots] == ["3", "3", "6", "3"]
    curve_svg({"qat": {"epochs": [{"epoch": 1, "map": 0.0}]}, "float": {"map": 0.0}})  # one epoch, no height


def test_the_large_dot_is_the_epoch_that_was_saved() -> None:
    """By AP with classes merged, epoch 2; by mAP it would be PTQ, epoch 0."""
    figures = [(0, 0.4, 0.5), (1, 0.3, 0.51), (2, 0.31, 0.53)]
    epochs = [{"epoch": epoch, "map": value, "merged": merged} for epoch, value, merged in figures]
    content = {"qat": {"epochs": epochs, "epoch": 2}, "ptq": {"map": 0.4, "merged": 0.5}}
    svg = curve_svg(content)
    assert re.findall(r'r="(\d)"', svg) == ["3", "3", "6"]
    assert "QAT, saved 53.00" in svg and "PTQ 50.00" in svg
    assert "QAT, saved 50.00" in curve_svg({**content, "qat": {"epochs": epochs, "epoch": 0}})  # --fall-back-to-ptq
