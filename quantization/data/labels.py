"""YOLO label files: rows of class and box beside every image, read with upstream's decisions. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import numpy as np

from quantization.data.images import Batch
from quantization.errors import UserError
from quantization.text import read_text

NO_ROWS = np.zeros((0, 5))


@dataclass(frozen=True)
class LabelFile:
    """A parsed label file.

    Attributes:
        rows: class, centre x, centre y, width, height (shares of the image) of each object: (N, 5) float64, of values
            rounded to float32 as upstream rounds them.
        lines: line number of each row.
        found: whether the file exists.
        duplicates: rows that were removed because they repeat another one.
        corrupt: why upstream leaves the image out of the data set; "" if it does not.
        mixed: line of a box among polygons, which upstream takes for a polygon of two points; 0: there is none.
    """

    rows: np.ndarray = field(default_factory=lambda: NO_ROWS)
    lines: Sequence[int] = ()
    found: bool = True
    duplicates: int = 0
    corrupt: str = ""
    mixed: int = 0


def label_file(image: str) -> Path:
    """The label file of an image: /images/ in its path becomes /labels/, its suffix .txt.

    Of several /images/ the last is replaced, as in yolov5; the first, as in yolov7, if only that file exists.
    """
    path = image if os.path.isabs(image) else os.path.join(os.curdir, image)
    path = path.rsplit(".", 1)[0] + ".txt"
    images, labels = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    last, first = labels.join(path.rsplit(images, 1)), path.replace(images, labels, 1)
    return Path(first if first != last and not os.path.isfile(last) and os.path.isfile(first) else last)


def parse_labels(file: Path, upstream: str = "yolov5") -> LabelFile:
    """Read a label file as upstream's LoadImagesAndLabels does; damage is reported, never raised.

    Args:
        file: the label file.
        upstream: "yolov5" or "yolov7". Both give the same rows, but yolov7 leaves an image out where yolov5 removes
            repeated rows, skips empty lines or takes a triangle for a polygon.
    """
    if not file.is_file():
        return LabelFile(found=False)
    try:
        text = read_text(file).rstrip()
    except UserError as error:
        return LabelFile(corrupt=str(error))
    lines = text.splitlines()
    indent = text[: len(text) - len(text.lstrip())]
    blank = len(f"{indent}0".splitlines()) - 1  # leading lines, which either upstream strips
    strict = upstream == "yolov7"
    numbers = [number for number, line in enumerate(lines, 1) if number > blank and (line or strict)]
    words = [lines[number - 1].split() for number in numbers]
    polygons = any(len(row) > (8 if strict else 6) for row in words)
    try:
        rows = _boxes_of_polygons(words) if polygons else _as_floats(words)
    except (ValueError, IndexError):
        return LabelFile(corrupt=_complaint(file, lines))
    if not len(rows):
        return LabelFile()
    # the comparisons are written so that NaN fails them
    if rows.shape[1:] != (5,) or not (rows >= 0).all() or not (rows[:, 1:] <= 1).all():
        return LabelFile(corrupt=_complaint(file, lines))
    mixed = next((number for number, row in zip(numbers, words) if len(row) == 5), 0) if polygons else 0
    duplicates = 0
    if len(set(map(tuple, rows.tolist()))) < len(rows):  # np.unique alone would take most of the time
        _, index = np.unique(rows, axis=0, return_index=True)
        duplicates = len(rows) - len(index)
        rows, numbers = rows[index], [numbers[place] for place in index]
    if duplicates and strict:
        return LabelFile(corrupt=f"{file} has {duplicates} duplicate rows")
    return LabelFile(rows.astype(np.float64), numbers, duplicates=duplicates, mixed=mixed)


def _as_floats(values: Sequence[Sequence[object]]) -> np.ndarray:
    """Raises a ValueError if the rows are not numbers, or not of one length."""
    with np.errstate(over="ignore"):  # to infinity, which is out of range
        return np.array(values, dtype=np.float32)


def _boxes_of_polygons(words: Sequence[Sequence[str]]) -> np.ndarray:
    """Bounding boxes, (N, 5) float32, of rows of a class and x, y of each corner."""
    rows = []
    for row in words:
        points = _as_floats(row[1:]).reshape(-1, 2)
        low, high = points.min(0), points.max(0)
        rows.append([np.float32(row[0]), *((low + high) / 2), *(high - low)])
    return np.array(rows, dtype=np.float32)


def _complaint(file: Path, lines: Sequence[str]) -> str:
    """What is wrong with a label file, by its first bad line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            return f"{file}, line {number}: {line.strip()[:80]!r} is not a row of numbers"
        polygon = len(values) > 6 and len(values) % 2 == 1
        if len(values) != 5 and not polygon:
            return f"{file}, line {number}: {len(values)} numbers, a label has 5 (class x y width height)"
        if not all(value >= 0 for value in values):
            return f"{file}, line {number}: a value is negative or NaN"
        if not polygon and not all(value <= 1 for value in values[1:]):
            return f"{file}, line {number}: the box is out of range, labels are shares of the image (0 to 1)"
    return f"{file}: the rows are not all boxes of 5 numbers, or all polygons inside the image, without empty lines"


def label_refusal(label: LabelFile, file: Path, classes: int, single_cls: bool = False) -> str:
    """Why the rows cannot be used where upstream would crash or be silently wrong; "" if they can.

    Args:
        label: of ``parse_labels``.
        file: where it was read from, for the message.
        classes: number of classes of the model.
        single_cls: all classes count as class 0.
    """
    if label.mixed:
        return (
            f"{file}, line {label.mixed}: a box among polygons, which upstream misreads as a polygon: "
            "write all rows of a file as boxes, or all as polygons"
        )
    if single_cls:
        return ""
    for number, value in zip(label.lines, label.rows[:, 0]):
        if value >= classes:
            return (
                f"{file}, line {number}: class {value:g} is out of range, the model has {classes} classes "
                f"(0 to {classes - 1}): use the data that the model was trained on"
            )
        if not float(value).is_integer():
            return f"{file}, line {number}: class {value:g} is not a whole number"
    return ""


def read_labels(file: Path, classes: int, single_cls: bool = False) -> np.ndarray:
    """Rows of class, centre x, centre y, width, height (shares of the image): (N, 5). No file means no objects.

    Args:
        file: the label file.
        classes: number of classes of the model.
        single_cls: all classes become 0, as by upstream's ``--single-cls``.

    Raises:
        UserError: upstream leaves such an image out (``checks.check_dataset`` did, if it was asked), or see ``label_refusal``.
    """
    label = parse_labels(file)
    complaint = label.corrupt or label_refusal(label, file, classes, single_cls)
    if complaint:
        raise UserError(complaint)
    rows = label.rows.copy()
    if single_cls:
        rows[:, 0] = 0
    return rows


def any_labels(images: Sequence[str]) -> bool:
    """Whether any of the images has a label file."""
    return any(label_file(image).is_file() for image in images)


def batch_targets(batch: Batch, size: tuple[int, int], classes: int, single_cls: bool = False) -> np.ndarray:
    """The labels of a batch as upstream's loss reads them.

    Args:
        batch: letterboxed images.
        size: their height and width.
        classes: number of classes.
        single_cls: all classes become 0.

    Returns:
        (N, 6) float32: number of the image in the batch, class, centre x, centre y, width, height, in parts of ``size``.

    Raises:
        UserError: see ``read_labels``.
    """
    parts = [np.zeros((0, 6))]
    for number, (file, pad, flip) in enumerate(zip(batch.files, batch.pads, batch.flips)):
        rows = read_labels(label_file(file), classes, single_cls)
        if flip:
            rows[:, 1] = 1 - rows[:, 1]
        for axis, whole in enumerate((size[1], size[0])):  # x, y
            pixels = whole - 2 * pad[axis]
            rows[:, 1 + axis] = (rows[:, 1 + axis] * pixels + pad[axis]) / whole
            rows[:, 3 + axis] *= pixels / whole
        parts.append(np.insert(rows, 0, number, axis=1))
    return np.concatenate(parts).astype(np.float32)
