"""Boxes drawn into images by OpenCV, which the upstreams need anyway; `supervision` would need Python 3.10 and PyAV."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from quantization.viewing.results import ImageResult, Overview

LONG_SIDE = 960  # pixels of a picture
QUALITY = 85  # of its JPEG
# BGR of the palette of Okabe and Ito, which people with any colour vision can tell apart
COLOURS = {"kept": (225, 225, 225), "moved": (0, 159, 230), "lost": (0, 94, 213), "new": (233, 180, 86)}
MISSED = (66, 228, 240)
DARK = (30, 30, 30)
DASH = 8  # pixels
FONT, TEXT = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def draw_sides(image: np.ndarray, result: ImageResult, summary: Overview) -> list[np.ndarray]:
    """A picture for each model.

    With two models a lost box is solid in the first picture and dashed, where it is missing, in the second; a new box the
    other way round. With labels, missed ones are dotted in their own colour.

    Args:
        image: (H, W, 3) uint8, BGR.
        result: of this image.
        summary: class names.

    Returns:
        BGR pictures, ``LONG_SIDE`` pixels at the longer side.
    """
    gain = LONG_SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * gain)), max(1, round(image.shape[0] * gain)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
    pictures = []
    for side in range(len(summary.models)):
        canvas = scaled.copy()
        if result.checks:
            for box in result.checks[side].missed:
                _dashed(canvas, box[:4] * gain, MISSED, gap=3)
        if len(summary.models) == 1:
            _draw_single(canvas, result, summary, gain)
        else:
            _draw_matches(canvas, result, side, summary, gain)
        pictures.append(canvas)
    return pictures


def _draw_single(canvas: np.ndarray, result: ImageResult, summary: Overview, gain: float) -> None:
    false = set(result.checks[0].false) if result.checks else set()
    for number in reversed(range(len(result.boxes[0]))):  # the best on top
        box = result.boxes[0][number]
        colour = COLOURS["lost"] if number in false else COLOURS["new"]
        _solid(canvas, box[:4] * gain, colour)
        _label(canvas, box[:4] * gain, f"{summary.drawn_name(box[5])} {box[4]:.2f}", colour)


def _draw_matches(canvas: np.ndarray, result: ImageResult, side: int, summary: Overview, gain: float) -> None:
    labels = []
    for match in reversed(result.matches):  # the costliest on top
        own, other = (match.first, match.second) if side == 0 else (match.second, match.first)
        colour = COLOURS[match.kind]
        shown = own if own is not None else other
        has_it = match.kind != ("new" if side == 0 else "lost")
        if shown is None:
            continue
        if has_it:
            _solid(canvas, shown[:4] * gain, colour, thin=match.kind == "kept")
        else:
            _dashed(canvas, shown[:4] * gain, colour)
        text = f"{summary.drawn_name(shown[5])} {'-' if own is None else f'{own[4]:.2f}'}"
        if match.kind != "kept" or (shown[2] - shown[0]) * gain > 9 * len(text):
            labels.append((shown[:4] * gain, text, colour))
    for box, text, colour in labels:
        _label(canvas, box, text, colour)


def _corners(box: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return (x1, y1), (x2, y2)


def _solid(canvas: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], thin: bool = False) -> None:
    low, high = _corners(box)
    cv2.rectangle(canvas, low, high, DARK, 3 if thin else 4, cv2.LINE_AA)  # seen on bright ground as well
    cv2.rectangle(canvas, low, high, colour, 1 if thin else 2, cv2.LINE_AA)


def _dashed(canvas: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], gap: int = DASH) -> None:
    (x1, y1), (x2, y2) = _corners(box)
    for width, ink in ((4, DARK), (2, colour)):
        for x in range(x1, x2, 2 * gap):
            for y in (y1, y2):
                cv2.line(canvas, (x, y), (min(x + gap, x2), y), ink, width)
        for y in range(y1, y2, 2 * gap):
            for x in (x1, x2):
                cv2.line(canvas, (x, y), (x, min(y + gap, y2)), ink, width)


def _label(canvas: np.ndarray, box: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    (width, height), below = cv2.getTextSize(text, FONT, TEXT, 1)
    (x1, y1), _ = _corners(box)
    left = min(max(0, x1 - 1), max(0, canvas.shape[1] - width - 6))
    top = y1 - height - below - 4
    top = top if top >= 0 else min(y1 + 1, canvas.shape[0] - height - below - 4)
    cv2.rectangle(canvas, (left, top), (left + width + 6, top + height + below + 4), colour, cv2.FILLED)
    place = (left + 3, top + height + 2)
    cv2.putText(canvas, text, place, FONT, TEXT, DARK, 1, cv2.LINE_AA)


def beside(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures side by side, each under its title."""
    columns = []
    for picture, title in zip(pictures, titles):
        head = np.full((28, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (6, 19), FONT, TEXT, DARK, 1, cv2.LINE_AA)
        columns.append(np.vstack((head, picture)))
    bar = np.full((columns[0].shape[0], 6, 3), 255, np.uint8)
    joined = [columns[0]]
    for column in columns[1:]:
        joined += [bar, column]
    return np.hstack(joined)


def jpeg(picture: np.ndarray) -> bytes:
    """A picture as JPEG."""
    found, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not found:
        raise RuntimeError("OpenCV could not encode a picture as JPEG")
    return bytes(data)
