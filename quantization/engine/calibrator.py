"""TensorRT's INT8 entropy calibration over batches of images, for mode ptq (TensorRT 10 and older)."""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator

import numpy as np

from quantization.engine.cuda import Cuda
from quantization.engine.options import Shape
from quantization.engine.versions import import_tensorrt
from quantization.errors import UserError
from quantization.files import atomic_write


def refuse_no_images(has_images: bool, cache: str | None) -> None:
    """Raises a UserError if there is nothing to calibrate with: neither images nor the file of an earlier calibration."""
    if not has_images and not (cache and os.path.isfile(cache)):
        raise UserError("mode ptq needs images to calibrate with: give --calib-images or an existing --calib-cache")


class CalibrationFeed:
    """Hands out batches of one fixed shape, and reads and writes the cache file.

    Args:
        batches: float32 arrays (B, 3, H, W) in 0..1; None: the cache file must exist.
        shape: (B, 3, H, W) of the calibration profile.
        cache: cache file, or None to keep no cache.

    Raises:
        UserError: neither images nor a cache file.
    """

    def __init__(self, batches: Iterable[np.ndarray] | None, shape: Shape, cache: str | None) -> None:
        refuse_no_images(batches is not None, cache)
        self.shape = tuple(shape)
        self.cache = cache
        self.images = 0
        self._has_images = batches is not None
        self._batches: Iterator[np.ndarray] = iter(batches if batches is not None else ())

    def next_batch(self) -> np.ndarray | None:
        """The next batch as a C-contiguous float32 array of ``shape``; None at the end.

        A short last batch is filled up with its own images again.

        Raises:
            UserError: a batch is of another image size, or there was none at all.
        """
        batch = next(self._batches, None)
        if batch is None:
            if self.images == 0:
                raise UserError(
                    "calibration found no images: check --calib-images"
                    if self._has_images
                    else f"calibration cache {self.cache} was not accepted by this TensorRT: give --calib-images"
                    " and another --calib-cache"
                )
            return None
        if batch.shape[1:] != self.shape[1:] or not 0 < len(batch) <= self.shape[0]:
            raise UserError(
                f"calibration batch {batch.shape} does not fit the network's {self.shape}: load the images at that size"
            )
        self.images += len(batch)
        return np.ascontiguousarray(np.resize(batch, self.shape), dtype=np.float32)  # np.resize repeats from the start

    def read_cache(self) -> bytes | None:
        """The cache file's bytes, None if there is none."""
        if not self.cache or not os.path.isfile(self.cache):
            return None
        with open(self.cache, "rb") as file:
            content = file.read()
        print(f"calibration cache {self.cache} is reused; delete it to calibrate again")
        return content or None

    def write_cache(self, content: bytes) -> None:
        """Write the cache file, if one was named."""
        if self.cache:
            with atomic_write(self.cache) as temporary, open(temporary, "wb") as file:
                file.write(content)


def entropy_calibrator(feed: CalibrationFeed, cuda: Cuda) -> Any:
    """A ``tensorrt.IInt8EntropyCalibrator2`` over a feed.

    Kept long: one class, whose base exists only where TensorRT does.

    TensorRT prints and drops exceptions of its callbacks, so they are kept: call ``finish()`` after the build, which
    frees the device buffer and raises the first of them. Keep the object alive until then.
    """
    import_tensorrt()  # a clear error where it is missing
    import tensorrt as trt

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)  # without it the first callback crashes
            self.error: Exception | None = None
            self._buffer = cuda.malloc(4 * int(np.prod(feed.shape)))

        def get_batch_size(self) -> int:
            return 1  # not used with explicit batch: the calibration profile's shape counts

        def get_batch(self, names: list[str]) -> list[int] | None:
            try:
                batch = feed.next_batch()
                if batch is None:
                    return None
                cuda.upload(self._buffer, batch)
                return [self._buffer] * len(names)
            except Exception as error:  # raised again by finish()
                self.error = self.error or error
                return None

        def read_calibration_cache(self) -> bytes | None:
            try:
                return feed.read_cache()
            except Exception as error:  # raised again by finish()
                self.error = self.error or error
                return None

        def write_calibration_cache(self, cache: Any) -> None:
            try:
                if self.error is None:
                    feed.write_cache(bytes(cache))
            except Exception as error:  # raised again by finish()
                self.error = self.error or error

        def finish(self) -> None:
            cuda.free(self._buffer)
            if self.error is not None:
                raise self.error

    return Calibrator()
