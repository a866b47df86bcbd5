"""YOLO label files: rows of class and box beside every image. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from quantization.data.images import Batch
from quantization.errors import UserError


def label_file(image: str) -> Path:
    """The YOLO label file of an image: the last /images/ in its path becomes /labels/, its suffix .txt."""
    path = Path(image)
    parts = list(path.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, classes: int) -> np.ndarray:
    """Rows of class, centre x, centre y, width, height (shares of the image): (N, 5). No file means no objects.

    Raises:
        UserError: a row is not five numbers (or a polygon), a class is out of range, or a box leaves the image.
    """
    if not file.is_file():
        return np.zeros((0, 5))
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError as error:
            raise UserError(f"{file}, line {number}: {line.strip()!r} is no YOLO label") from error
        if len(values) > 6 and len(values) % 2:  # a polygon: its bounding box
            points = np.array(values[1:]).reshape(-1, 2)
            low, high = points.min(0), points.max(0)
            values = [values[0], *((low + high) / 2), *(high - low)]
        if len(values) != 5:
            raise UserError(f"{file}, line {number}: {len(values)} numbers, a label has 5 (class x y width height)")
        if not (values[0].is_integer() and 0 <= values[0] < classes):
            raise UserError(
                f"{file}, line {number}: class {values[0]:g} is out of range, the model has {classes} classes"
            )
        if not all(0 <= value <= 1.0001 for value in values[1:]):
            raise UserError(f"{file}, line {number}: the box is out of range, labels are shares of the image (0 to 1)")
        rows.append(values)
    return np.array(rows).reshape(-1, 5)


def any_labels(images: Sequence[str]) -> bool:
    """Whether any of the images has a label file."""
    return any(label_file(image).is_file() for image in images)


def batch_targets(batch: Batch, size: tuple[int, int], classes: int) -> np.ndarray:
    """The labels of a batch as upstream's loss reads them.

    Args:
        batch: letterboxed images.
        size: their height and width.
        classes: number of classes.

    Returns:
        (N, 6) float32: number of the image in the batch, class, centre x, centre y, width, height, in parts of ``size``.

    Raises:
        UserError: see ``read_labels``.
    """
    parts = [np.zeros((0, 6))]
    for number, (file, pad, flip) in enumerate(zip(batch.files, batch.pads, batch.flips)):
        rows = read_labels(label_file(file), classes)
        if flip:
            rows[:, 1] = 1 - rows[:, 1]
        for axis, whole in enumerate((size[1], size[0])):  # x, y
            pixels = whole - 2 * pad[axis]
            rows[:, 1 + axis] = (rows[:, 1 + axis] * pixels + pad[axis]) / whole
            rows[:, 3 + axis] *= pixels / whole
        parts.append(np.insert(rows, 0, number, axis=1))
    return np.concatenate(parts).astype(np.float32)
