"""The box of one COCO annotation: its ``bbox``, or the extent of its segmentation where it has none."""

from __future__ import annotations

import math
from typing import Any, Mapping, Sequence

import numpy as np

from quantization.errors import UserError

LARGEST_AREA = 1e10  # pycocotools leaves out what is larger


def annotation_box(annotation: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    """The box in pixels: left, top, width, height. A side may be 0.

    Args:
        annotation: one entry of ``annotations``.
        where: the file and the annotation, for messages.

    Raises:
        UserError: it has neither a box nor an outline, or a damaged one.
    """
    box = annotation.get("bbox")
    if box is None or box == []:
        return _extent(annotation.get("segmentation"), where)
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise UserError(f"{where}: bbox {_short(box)} is not four numbers, x, y, width and height in pixels")
    if min(box[2:]) < 0:
        raise UserError(f"{where}: bbox {_short(box)} has a negative side; x, y, width and height in pixels are needed")
    if box[2] * box[3] > LARGEST_AREA or max(map(abs, box)) > LARGEST_AREA:
        raise UserError(f"{where}: bbox {_short(box)} is larger than any image")
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _extent(segmentation: object, where: str) -> tuple[float, float, float, float]:
    """The box around polygons or a run-length code."""
    if isinstance(segmentation, list) and segmentation:
        return _polygon_extent(segmentation, where)
    if isinstance(segmentation, dict):
        return _mask_extent(segmentation, where)
    raise UserError(f"{where} has no bbox and no segmentation to take it from")


def _polygon_extent(polygons: Sequence[object], where: str) -> tuple[float, float, float, float]:
    if all(map(is_number, polygons)):  # one polygon without the list around it
        polygons = [polygons]
    points: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(is_number, polygon)):
            raise UserError(f"{where} has no bbox, and its segmentation has a polygon that is no list x, y, x, y, ...")
        points += polygon
    left, top, right, bottom = min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    return annotation_box({"bbox": [left, top, right - left, bottom - top]}, where)


def _mask_extent(code: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    """Of a mask that is coded column by column as lengths of background, object, background, ..."""
    size, counts = code.get("size"), code.get("counts")
    lengths = _text_lengths(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 < side <= 10**5 for side in size)
        or not isinstance(lengths, list)
        or not all(type(length) is int and 0 <= length <= LARGEST_AREA for length in lengths)
        or sum(lengths) != size[0] * size[1]
    ):
        raise UserError(f"{where} has no bbox, and its segmentation is no run-length code of a mask")
    ends = np.cumsum(lengths, dtype=np.int64)
    first, last = (ends[:-1])[::2], ends[1::2] - 1  # of every run of the object
    first, last = first[first <= last], last[first <= last]
    if not first.size:
        return 0.0, 0.0, 0.0, 0.0
    height = size[0]
    left, right = int(first.min()) // height, int(last.max()) // height
    # a run that goes over the end of a column holds both its bottom and the next one's top
    whole = first // height != last // height
    top = 0 if whole.any() else int((first % height).min())
    bottom = height - 1 if whole.any() else int((last % height).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _text_lengths(text: str) -> list[int] | None:
    """Run lengths from COCO's compressed text: five bits a character, and differences from the length before last."""
    lengths: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more to come
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value, shift = 0, 0
    return None if shift else lengths
