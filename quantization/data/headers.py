"""Headers of image files: which images upstream leaves out, and what size OpenCV gives the others."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from typing import Iterator

import cv2
import numpy as np
from PIL import Image

from quantization.data.listing import IMAGE_SUFFIXES

ORIENTATION = 274  # EXIF tag
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises of damaged files
END_OF_FILE = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82"}
OPENCV_SIDE, OPENCV_PIXELS = 1 << 20, 1 << 30  # its limits, unless OPENCV_IO_MAX_IMAGE_PIXELS and the like are set


class _NoPixelLimit:
    """Lifts Pillow's limit on an image's pixels, which is below what OpenCV reads, while any thread is inside."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = threading.Lock(), 0, Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit


_NO_PIXEL_LIMIT = _NoPixelLimit()


@contextlib.contextmanager
def open_image(file: str) -> Iterator[Image.Image]:
    """A file opened by Pillow, its header read; large ones too. Raises one of ``DAMAGE``."""
    with _NO_PIXEL_LIMIT, Image.open(file) as image:
        yield image


def turned_shape(image: Image.Image, file: str) -> tuple[int, int]:
    """Height and width of an image opened by Pillow, as OpenCV turns it by its EXIF orientation."""
    width, height = image.size
    if not _lies_on_its_side(image):
        return height, width
    if image.format in ("JPEG", "MPO"):
        return width, height
    decoded = decode_image(file)  # whether it turns other formats depends on OpenCV's version
    return (height, width) if decoded is None else (int(decoded.shape[0]), int(decoded.shape[1]))


def _lies_on_its_side(image: Image.Image) -> bool:
    exif = Image.Exif()  # of the EXIF block alone: Image.getexif() looks into XMP too, OpenCV does not
    try:
        exif.load(image.info.get("exif", b""))
        tags = image.getexif() if image.format == "TIFF" else exif
        return tags.get(ORIENTATION, 1) in (5, 6, 7, 8)
    except DAMAGE:  # upstream and OpenCV ignore a damaged block as well
        return False


def image_fault(file: str, upstream: str = "yolov5") -> str:
    """Why an image cannot be used, from its header and last bytes; "" if it can.

    Upstream leaves out what Pillow cannot open or verify, what is below 10 pixels, and formats that it does not list.
    So do we, and we leave out what OpenCV cannot read, where upstream's evaluation crashes. Files that are too
    large for Pillow's limit, but not for OpenCV's, are kept.

    Args:
        file: the image.
        upstream: "yolov5" or "yolov7"; yolov5 leaves out JPEG files that are cut off, yolov7 reads what is there.
    """
    try:
        with open_image(file) as image:
            height, width = turned_shape(image, file)
            image.verify()  # the checksums of a PNG, little else
            kind = str(image.format)
    except Exception as error:  # whatever Pillow makes of damaged bytes: upstream catches all of it too
        return f"{file} is not a readable image ({str(error) or type(error).__name__})".replace(f" '{file}'", "")
    if kind.lower() not in IMAGE_SUFFIXES:
        return f"{file} is a {kind} file, which upstream does not read"
    if min(height, width) < 10:
        return f"{file} has {width} x {height} pixels, upstream leaves out images below 10"
    if max(height, width) > OPENCV_SIDE or height * width > OPENCV_PIXELS:
        return f"{file} has {width} x {height} pixels, more than OpenCV reads"
    if not _ends_well(file, kind) and not _decodes(file, kind, upstream):
        return f"{file} is cut off or damaged"
    return ""


def _ends_well(file: str, kind: str) -> bool:
    """Whether the file's end shows that it is whole; Pillow decodes a WebP when it opens it."""
    if kind not in END_OF_FILE:
        return kind == "WEBP"
    mark = END_OF_FILE[kind]
    with open(file, "rb") as handle:
        handle.seek(-len(mark), os.SEEK_END)
        return handle.read() == mark


def _decodes(file: str, kind: str, upstream: str) -> bool:
    if kind == "JPEG" and upstream == "yolov5":  # it rewrites such a file, and fails where pixels are missing
        try:
            with open_image(file) as image:
                image.load()
        except DAMAGE:
            return False
    return decode_image(file) is not None


def decode_image(file: str) -> np.ndarray | None:
    """The image as upstream reads it: (H, W, 3) uint8, BGR; None if OpenCV cannot."""
    try:
        return cv2.imread(file)
    except (cv2.error, OSError):  # above OpenCV's limit of pixels; upstream's own imread of a file that has gone
        return None
