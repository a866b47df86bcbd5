"""Two networks on the same few images: what ``box_differences`` compares, real images or drawn ones. No torch."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import cv2
import numpy as np

from quantization.data.dataset import image_files
from quantization.data.images import load_batches
from quantization.evaluation.box_differences import STILL_FOUND, BoxDifferences, box_differences
from quantization.evaluation.detections import Boxes, image_detections

IMAGES = 16  # compared: enough for hundreds of confident detections in photographs of COCO's kind
IOU = 0.65  # of the suppression
COARSE = 8  # cells of the colours that a drawn image fades between


class NamedImages(NamedTuple):
    """Image files, and what the user calls them."""

    name: str
    files: Sequence[str]


def named_images(source: str) -> NamedImages:
    """The images of a folder, a .txt list or a data.yaml.

    Raises:
        UserError: there are none.
    """
    return NamedImages(source, image_files(source))


def comparison_images(source: NamedImages | None, size: tuple[int, int], count: int = IMAGES) -> np.ndarray:
    """Images to compare on.

    Args:
        source: images all over it are taken; None: smooth drawn ones, on which a network hardly finds anything, but
            computes on values of natural size.
        size: H and W of the network's input.
        count: how many.

    Returns:
        (B, 3, H, W) float32 in 0..1.

    Raises:
        UserError: one cannot be read.
    """
    return smooth_images(size, count) if source is None else some_images(source.files, size, count)


def some_images(files: Sequence[str], size: tuple[int, int], count: int = IMAGES) -> np.ndarray:
    """Images from all over a list, (B, 3, H, W) float32 in 0..1.

    Raises:
        UserError: one cannot be read.
    """
    chosen = some_files(files, count)
    return np.concatenate(list(load_batches(chosen, size, len(chosen))))


def some_files(files: Sequence[str], count: int = IMAGES) -> list[str]:
    """``count`` files from all over a list, or all if there are fewer."""
    return [files[index] for index in np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))]


def smooth_images(size: tuple[int, int], count: int) -> np.ndarray:
    """Seeded images whose colours fade into each other, (B, 3, H, W) float32 in 0..1."""
    coarse = np.random.default_rng(0).random((count, COARSE, COARSE, 3), dtype=np.float32)
    images = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR) for image in coarse]
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def found_differences(reference: Boxes, candidate: Boxes) -> BoxDifferences:
    """Compare what two networks find, from their boxes of the same batch."""
    found = [
        [image_detections(boxes, place, STILL_FOUND, IOU) for place in range(len(boxes))]
        for boxes in (reference, candidate)
    ]
    return box_differences(*found)
