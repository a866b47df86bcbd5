"""Images for calibration, drawn at random from a data set's training images."""

from __future__ import annotations

import random

from quantization.data.dataset import Dataset
from quantization.data.images import Loader
from quantization.distributed import RANKS
from quantization.options import ReadOptions

SQNR_IMAGES = 64  # on a trained yolov5n the estimates are then 1.4 dB from brute force (standard deviation)


def training_sample(dataset: Dataset, options: ReadOptions, size: tuple[int, int], count: int = SQNR_IMAGES) -> Loader:
    """``count`` training images at random, letterboxed as in evaluation; with many processes this one's batches of them.

    Args:
        dataset: whose training images.
        options: seed and batches.
        size: height and width.
        count: how many.
    """
    files = random.Random(options.seed).sample(dataset.train, min(len(dataset.train), count))
    return Loader(
        files,
        size,
        options.batch_size,
        options.workers,
        turn=(RANKS.rank, RANKS.size),
    )
