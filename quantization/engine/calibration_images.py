"""The images of mode ptq: from a folder or list, read with Pillow and OpenCV, or from a numpy array."""

from __future__ import annotations

import os
from typing import Iterator

import numpy as np

from quantization.engine.options import Shape
from quantization.engine.specs import Calibration
from quantization.errors import UserError, missing_package


def calibration_images(source: str | None, count: int) -> Calibration | None:
    """The calibration images: ``count`` of them, spread evenly over the list or array.

    Raises:
        UserError: the source cannot be read, or a package that reads images is missing.
    """
    if source is None:
        return None
    if source.endswith(".npy"):
        return _calibration_array(source, count)
    try:
        from quantization.data.dataset import image_files
        from quantization.data.images import load_batches
    except ImportError as error:
        package = missing_package(error)
        raise UserError(
            f"--calib-images {source} cannot be read without {package} ({error}): pip install {package}, or give "
            "a .npy of (N, 3, H, W) uint8"
        ) from error
    files = image_files(source)
    chosen = [files[index] for index in _spread(len(files), count)]

    def batches(shape: Shape) -> Iterator[np.ndarray]:
        return iter(load_batches(chosen, size=(shape[2], shape[3]), batch_size=shape[0]))

    return Calibration(os.path.abspath(source), len(chosen), batches)


def _calibration_array(path: str, count: int) -> Calibration:
    """Images (N, 3, H, W), uint8 or float32 in 0..1, for a machine without what reads images."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"--calib-images {path} cannot be read ({error}): give a .npy of (N, 3, H, W)") from error
    if images.ndim != 4 or len(images) == 0 or images.dtype not in (np.uint8, np.float32):
        raise UserError(
            f"--calib-images {path} holds {images.dtype} {images.shape}: give (N, 3, H, W) in uint8, or in "
            "float32 from 0 to 1"
        )
    chosen = _spread(len(images), count)

    def batches(shape: Shape) -> Iterator[np.ndarray]:
        for first in range(0, len(chosen), shape[0]):
            batch = np.asarray(images[chosen[first : first + shape[0]]])
            yield batch.astype(np.float32) / 255 if batch.dtype == np.uint8 else batch

    return Calibration(os.path.abspath(path), len(chosen), batches)


def _spread(total: int, count: int) -> list[int]:
    """Indices of ``count`` of ``total`` items, evenly spread."""
    return [int(index) for index in np.linspace(0, total - 1, min(count, total))]
