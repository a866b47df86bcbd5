"""The augmented images of the accuracy benchmark, made by the real upstreams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import accuracy_data
import cv2
import numpy as np
import pytest
from accuracy_data import link_dataset

from quantization.data.dataset import open_dataset
from shapes import draw_dataset
from support.workflow import run_python


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_mosaics(upstream: str, checkouts: Callable[[str], Path], tmp_path: Path) -> None:
    """Upstream's augmented images are a data set to calibrate on, the same for the same seed."""
    source = draw_dataset(tmp_path / "set", train=6, val=1, size=96, objects=3, workers=1).parent
    script = Path(accuracy_data.__file__).with_name("accuracy_mosaics.py")
    for name in ("one", "two"):
        options = "--imgsz 64 --count 4 --seed 7".split()
        run_python(checkouts(upstream), script, upstream, source / "train2017.txt", tmp_path / name, *options)
    link_dataset(source, tmp_path / "linked", tmp_path / "one" / "train2017.txt")
    dataset = open_dataset(str(tmp_path / "linked"))
    assert len(dataset.train) == 4 and dataset.annotations is not None and os.path.isfile(dataset.val[0])
    assert open_dataset(str(source)).val == [
        os.path.join(str(source), "images/val2017", os.path.basename(file)) for file in dataset.val
    ]
    images = [cv2.imread(file) for file in dataset.train]
    assert {image.shape for image in images} == {(64, 64, 3)} and len({image.tobytes() for image in images}) == 4
    again = [cv2.imread(str(file)) for file in sorted((tmp_path / "two" / "images").iterdir())]
    assert all(np.array_equal(first, second) for first, second in zip(images, again))
