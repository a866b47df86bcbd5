"""The calibration images of an ONNX, as the network takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Iterator, Tuple

import numpy as np

from quantization.data.checks import Needs, check_dataset
from quantization.data.dataset import Dataset, image_files, open_dataset
from quantization.data.images import Loader
from quantization.data.sample import training_sample
from quantization.errors import UserError
from quantization.onnx_quantize.float_model import IMAGE_CHANNELS
from quantization.onnx_quantize.options import OnnxImageOptions

Images = Tuple[Iterable[np.ndarray], int]  # batches (B, 3, H, W), and the number of images


def calibration_batches(options: OnnxImageOptions, shape: tuple[int, int, int], count: int) -> Images:
    """Images for calibration: of --data the same that the quantize command takes of it.

    Args:
        options: which images, and how they are read.
        shape: C, H and W.
        count: how many.

    Raises:
        UserError: they cannot be read, or an array does not fit the network.
    """
    if options.images is not None and options.images.endswith(".npy"):
        array = open_array(options.images, shape)
        return array_batches(array[:count], options.batch_size), min(count, len(array))
    if shape[0] != IMAGE_CHANNELS:
        raise UserError(
            f"the network takes images of {shape[0]} channels: give --images a .npy of (N, {shape[0]}, H, W)"
        )
    loader = training_sample(open_images(options), options, shape[1:], count)
    return ImageBatches(loader), len(loader.files)


def open_images(options: OnnxImageOptions) -> Dataset:
    """The data set of --data, checked, or the images of a folder or list as one."""
    if options.images is not None:
        if options.images.endswith((".yaml", ".yml")):
            raise UserError(f"--images {options.images} is a YAML file: give it to --data")
        return Dataset(image_files(options.images), [], None, [], f"--images {options.images}")
    dataset = open_dataset(data=options.data)
    needs = Needs("yolov5", dataset.class_count or 0, train=True, train_labels=False, val=False)
    return check_dataset(dataset, needs).dataset


class ImageBatches:
    """Batches of images as float32 in 0..1, RGB; can be iterated again and again."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self._loader:
            yield batch.images.astype(np.float32) / 255


def open_array(file: str, shape: tuple[int, int, int]) -> np.ndarray:
    """An array of images on disk.

    Raises:
        UserError: it is missing or damaged, or its images do not fit the network.
    """
    if not Path(file).is_file():
        raise UserError(f"--images {file} does not exist")
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--images {file} cannot be read ({error}): give a .npy of (N, C, H, W)") from error
    fits = images.ndim == 4 and len(images) > 0 and images.dtype in (np.uint8, np.float32)
    if not fits or tuple(images.shape[1:]) != shape:
        wanted = ", ".join(map(str, shape))
        raise UserError(f"--images {file} holds {images.dtype} {images.shape}: give (N, {wanted}) in uint8 or float32")
    return images


def array_batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of an array as float32; uint8 becomes 0..1."""
    for first in range(0, len(images), batch_size):
        batch = np.asarray(images[first : first + batch_size])
        yield batch.astype(np.float32) / 255 if batch.dtype == np.uint8 else batch
