"""Labels as upstream's loss reads them, against upstream's own data set, and the loss against upstream's ComputeLoss."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest

from quantization.data.images import Loader
from quantization.data.labels import any_labels, batch_targets
from support.workflow import run_task


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A list of two images of different shapes, and one without objects."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    files = []
    for number, (height, width) in enumerate(((60, 100), (90, 50), (64, 64))):
        files.append(tmp_path / "images" / f"{number}.png")
        cv2.imwrite(str(files[-1]), generator.integers(0, 255, (height, width, 3), np.uint8))
    (tmp_path / "labels" / "0.txt").write_text("1 0.25 0.5 0.2 0.4\n0 0.9 0.1 0.1 0.2\n")
    (tmp_path / "labels" / "1.txt").write_text("2 0.5 0.75 0.6 0.1\n")
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{file}\n" for file in files))
    return listing


def test_targets_by_hand(images: Path) -> None:
    """100 x 60 becomes 64 x 38 with 13 rows of border; 50 x 90 becomes 35 x 64 with 14.5 columns."""
    (batch,) = Loader(images.read_text().split(), (64, 64), 3)
    np.testing.assert_allclose(
        batch_targets(batch, (64, 64), 3),
        [
            [0, 1, 0.25, (0.5 * 38 + 13) / 64, 0.2, 0.4 * 38 / 64],
            [0, 0, 0.9, (0.1 * 38 + 13) / 64, 0.1, 0.2 * 38 / 64],
            [1, 2, (0.5 * 35 + 14.5) / 64, 0.75, 0.6 * 35 / 64, 0.1],
        ],
        atol=1e-6,
    )
    assert any_labels(batch.files) and not any_labels(batch.files[2:])
    assert batch_targets(type(batch)(batch.images, []), (64, 64), 3).shape == (0, 6)


def test_a_flip_mirrors_the_boxes(images: Path) -> None:
    files = images.read_text().split()[:1]
    plain = batch_targets(next(iter(Loader(files, (64, 64), 1))), (64, 64), 3)
    seen = set()
    for seed in range(8):
        (batch,) = Loader(files, (64, 64), 1, shuffle_seed=seed)
        expected = plain.copy()
        if batch.flips[0]:
            expected[:, 2] = 1 - expected[:, 2]
        np.testing.assert_allclose(batch_targets(batch, (64, 64), 3), expected, atol=1e-6)
        seen.add(batch.flips[0])
    assert seen == {False, True}


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_targets_and_loss_equal_upstreams(checkouts: Callable[[str], Path], images: Path, upstream: str) -> None:
    result = run_task(checkouts(upstream), "labels_and_loss", upstream, images)
    np.testing.assert_allclose(sorted(result["ours"]), sorted(result["theirs"]), atol=0.01)
    assert result["loss"] == pytest.approx(result["expected"], rel=1e-5)
    # hyp.scratch-low.yaml and hyp.scratch.p5.yaml, scaled by train.py for 3 classes and 320 pixels
    cls, obj = (0.5, 1.0) if upstream == "yolov5" else (0.3, 0.7)
    assert result["default"] == pytest.approx(
        {
            "box": 0.05,
            "cls": cls * 3 / 80,
            "obj": obj / 4,
            "cls_pw": 1.0,
            "obj_pw": 1.0,
            "anchor_t": 4.0,
            "fl_gamma": 0.0,
        }
    )
    assert result["gradient"] > 0
