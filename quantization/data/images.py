"""Images, checked, letterboxed as at inference, and put into batches. numpy, Pillow and OpenCV, no torch."""

from __future__ import annotations

import os
import random
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence, Tuple

import cv2
import numpy as np

from quantization.data.headers import DAMAGE, decode_image, open_image, turned_shape
from quantization.errors import UserError

Part = Tuple[np.ndarray, float, Tuple[float, float], Tuple[int, int], bool, str]  # of a batch, see ``read``
GREY = (114, 114, 114)  # the border's colour in both upstreams


@dataclass
class Batch:
    """Letterboxed images.

    Attributes:
        images: (B, 3, H, W) uint8, RGB.
        files: their paths.
        gains: network pixels per image pixel.
        pads: border left and above, network pixels.
        shapes: height and width of the image files.
        flips: whether each was flipped left to right.
    """

    images: np.ndarray
    files: list[str]
    gains: list[float] = field(default_factory=list)
    pads: list[tuple[float, float]] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)


def image_shape(file: str) -> tuple[int, int]:
    """Height and width from the file's header, EXIF rotation applied as OpenCV does.

    Raises:
        UserError: the file is not an image.
    """
    try:
        with open_image(file) as image:
            return turned_shape(image, file)
    except DAMAGE as error:
        raise UserError(f"{file} is not a readable image: remove it from the list") from error


def letterbox(
    image: np.ndarray, size: tuple[int, int], long_side: int | None = None
) -> tuple[np.ndarray, float, tuple[float, float]]:
    """Scale an image and centre it on grey, as both upstreams do in evaluation.

    Args:
        image: (h, w, 3) uint8.
        size: height and width of the result.
        long_side: scale the image's longer side to this many pixels; None: as large as fits into ``size``.

    Returns:
        The (H, W, 3) image, network pixels per image pixel, and the border left and above.
    """
    height, width = image.shape[:2]
    ratio = long_side / max(height, width) if long_side else min(size[0] / height, size[1] / width)
    if ratio != 1:
        scaled = (max(1, int(width * ratio)), max(1, int(height * ratio)))
        image = cv2.resize(image, scaled, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    gain = image.shape[0] / height  # of the whole pixels, as upstream reports it
    pad = ((size[1] - image.shape[1]) / 2, (size[0] - image.shape[0]) / 2)
    left, top = (round(value - 0.1) for value in pad)
    image = cv2.copyMakeBorder(
        image,
        top,
        size[0] - image.shape[0] - top,
        left,
        size[1] - image.shape[1] - left,
        cv2.BORDER_CONSTANT,
        value=GREY,
    )
    return image, gain, pad


def rect_shapes(
    shapes: Sequence[tuple[int, int]], batch_size: int, size: int, stride: int, pad: float = 0.5
) -> tuple[list[int], list[tuple[int, int]]]:
    """Order images by aspect ratio and give each batch the smallest shape, as upstream's ``rect=True`` does.

    Args:
        shapes: height and width of each image.
        batch_size: images per batch.
        size: longest side, pixels.
        stride: the shapes are multiples of it.
        pad: extra, in strides.

    Returns:
        Image indices in order, and (H, W) of each batch.
    """
    aspect = np.array([height / width for height, width in shapes])
    order = aspect.argsort()  # the order of equal ones, and so what is in a batch, is upstream's
    result = []
    for start in range(0, len(order), batch_size):
        ratios = aspect[order[start : start + batch_size]]
        shape = [1.0, 1.0]
        if ratios.max() < 1:
            shape = [float(ratios.max()), 1.0]
        elif ratios.min() > 1:
            shape = [1.0, 1.0 / float(ratios.min())]
        height, width = (int(np.ceil(side * size / stride + pad)) * stride for side in shape)
        result.append((height, width))
    return [int(index) for index in order], result


@dataclass
class Loader:
    """Batches of letterboxed images; iterate as often as you like.

    Attributes:
        files: the images.
        size: height and width.
        batch_size: images per batch; the last one may be smaller.
        workers: threads that read images.
        rect_stride: not None: evaluate in rectangles of multiples of this stride, as upstream does; None: in ``size``.
        shuffle_seed: not None: a new order in every pass and random left-right flips, from this seed on.
        turn: (r, n): only batches r, r + n, r + 2 n, ..., for process r of n.
        part: (r, n): of each batch only images r, r + n, ..., for process r of n; may be none.
        passes: how many passes have begun; the order of a pass follows from ``shuffle_seed`` and this number.
        skip: batches to leave out of the next pass, which a run that was interrupted has had.
        read_image: reads an image, or another in its place; None: ``read``.
    """

    files: list[str]
    size: tuple[int, int]
    batch_size: int = 8
    workers: int = 4
    rect_stride: int | None = None
    shuffle_seed: int | None = None
    passes: int = 0
    skip: int = 0
    read_image: Callable[..., Part] | None = None
    turn: tuple[int, int] = (0, 1)
    part: tuple[int, int] = (0, 1)

    @property
    def batches(self) -> int:
        """Number of batches in a pass, also those of other processes."""
        return -(-len(self.files) // self.batch_size)

    def __len__(self) -> int:
        return len(range(self.turn[0], self.batches, self.turn[1]))

    def __iter__(self) -> Iterator[Batch]:
        files, sizes, flips = list(self.files), [self.size] * self.batches, [False] * len(self.files)
        read_image = self.read_image or read
        long_side = max(self.size) if self.rect_stride is not None else None
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            if self.rect_stride is not None:
                files.sort()  # as upstream, before it orders by aspect ratio
                order, sizes = rect_shapes(
                    list(pool.map(image_shape, files)), self.batch_size, max(self.size), self.rect_stride
                )
                files = [files[index] for index in order]
            if self.shuffle_seed is not None:
                generator = random.Random(self.shuffle_seed + self.passes)
                self.passes += 1
                generator.shuffle(files)
                flips = [generator.random() < 0.5 for _ in files]
            first, self.skip = self.skip, 0
            files, flips, sizes = (
                files[first * self.batch_size :],
                flips[first * self.batch_size :],
                sizes[first:],
            )
            pending: deque[Future[Batch]] = deque()
            for number in range(self.turn[0], len(sizes), self.turn[1]):
                end = min(len(files), (number + 1) * self.batch_size)
                mine = range(number * self.batch_size + self.part[0], end, self.part[1])
                futures = [
                    pool.submit(read_image, files[index], sizes[number], long_side, flips[index]) for index in mine
                ]
                # begun after these reads, so it waits for none that still wait for a thread
                pending.append(pool.submit(gather, sizes[number], futures))
                if len(pending) > 2:  # read two batches ahead
                    yield pending.popleft().result()
            for future in pending:
                yield future.result()


def gather(size: tuple[int, int], futures: list[Any]) -> Batch:
    """Make a batch of its images, which have this height and width."""
    parts = [future.result() for future in futures]
    if not parts:
        return Batch(np.zeros((0, 3, *size), np.uint8), [])
    images = np.empty((len(parts), 3, *size), np.uint8)
    for place, part in enumerate(parts):
        images[place] = part[0].transpose(2, 0, 1)[::-1]  # BGR to RGB
    return Batch(
        images,
        [part[5] for part in parts],
        *(list(column) for column in list(zip(*parts))[1:5]),
    )


def read(file: str, size: tuple[int, int], long_side: int | None = None, flip: bool = False) -> Part:
    """Read and letterbox one image: (H, W, 3) BGR, gain, pad, (height, width) of the file, whether it is flipped, file.

    Raises:
        UserError: OpenCV cannot read it.
    """
    image = decode_image(file)
    if image is None:
        reason = "is not a readable image" if os.path.isfile(file) else "does not exist any more"
        raise UserError(f"{file} {reason}: remove it from the list")
    shape = (int(image.shape[0]), int(image.shape[1]))
    boxed, gain, pad = letterbox(image[:, ::-1] if flip else image, size, long_side)
    return boxed, gain, pad, shape, flip, file


def load_batches(files: Sequence[str], size: tuple[int, int], batch_size: int) -> Iterator[np.ndarray]:
    """Float32 batches (B, 3, H, W) in 0..1 of square-letterboxed images, for engines and their calibration."""
    for batch in Loader(list(files), size, batch_size):
        yield batch.images.astype(np.float32) / 255
