"""Boxes of annotations that have an outline only, against pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks

from quantization.errors import UserError
from quantization.evaluation.coco_boxes import annotation_box


def test_masks_as_pycocotools_boxes_them() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in generator.integers(1, 40, 2))
        image = np.asfortranarray(generator.random((height, width)) < generator.choice([0.0, 0.01, 0.3, 1.0]), np.uint8)
        code = masks.encode(image)
        flat = image.flatten(order="F")
        ends = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
        counts = ([0] if flat[0] else []) + np.diff(ends).tolist()
        expected = masks.toBbox(code).tolist()
        for form in (counts, code["counts"].decode()):
            box = annotation_box({"segmentation": {"size": [height, width], "counts": form}}, "x")
            assert list(box) == expected


def test_polygons() -> None:
    assert annotation_box({"segmentation": [[1, 2, 5.5, 2, 3, 9]]}, "x") == (1, 2, 4.5, 7)
    assert annotation_box({"segmentation": [1, 2, 5.5, 2, 3, 9], "bbox": []}, "x") == (1, 2, 4.5, 7)
    assert annotation_box({"segmentation": [[1, 2, 5, 2, 3, 9], [0, 0, 1, 0, 1, 1]]}, "x") == (0, 0, 5, 9)


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": []},
        {"segmentation": []},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": [["1", 2, 3, 4, 5, 6]]},
        {"segmentation": {"size": [4, 4], "counts": [3]}},
        {"segmentation": {"size": [4, 4], "counts": [20, -4]}},
        {"segmentation": {"size": [0, 4], "counts": []}},
        {"segmentation": {"size": [4, 4], "counts": "\x7fP"}},
        {"segmentation": {"size": [4, 4], "counts": "`"}},  # more digits are announced than there are
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, True]},
        {"bbox": [1, 2, 3, float("inf")]},
        {"bbox": [1, 2, 3, 10**400]},
        {"bbox": [1, 2, 10**6, 10**6]},
        {"bbox": [1, 2, 3, -1]},
        {"bbox": "1 2 3 4"},
    ],
)
def test_damage_is_refused(annotation: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="number 7"):
        annotation_box(annotation, "x.json: annotation number 7")
