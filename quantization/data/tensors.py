"""Batches of a data set as tensors."""

from __future__ import annotations

from typing import Iterator, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from quantization.data.images import Loader
from quantization.data.labels import batch_targets
from quantization.distributed import RANKS
from quantization.errors import UserError

Labelled = Tuple[Tensor, Optional[Tensor]]  # images (B, 3, H, W), floats in 0..1; targets (N, 6), or None


class TensorLoader:
    """Images (B, 3, H, W), floats in 0..1 on ``device``; can be iterated again and again."""

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.loader, self.device = loader, device

    @property
    def image_count(self) -> int:
        """Number of images in a pass."""
        return len(self.loader.files)

    def __len__(self) -> int:  # batches
        return len(self.loader)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.loader:
            yield as_floats(batch.images, self.device)


def pick_device(name: str | None) -> torch.device:
    """The device that ``--device`` names; None: the first GPU, or the CPU; with many processes each its own GPU.

    Raises:
        UserError: torch does not know it, or has no such GPU.
    """
    if RANKS.many and name not in (None, "cpu", "cuda"):
        raise UserError(f"--device {name} is for one process: leave it out, torchrun gives each process its own GPU")
    if name is None or (RANKS.many and name == "cuda"):
        name = f"cuda:{RANKS.local}" if torch.cuda.is_available() or name else "cpu"
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown: give cpu or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a torch built for your CUDA"
        )
    return device


def as_floats(images: np.ndarray, device: torch.device) -> Tensor:
    """Images (B, 3, H, W) uint8 as floats in 0..1 on ``device``, to which they go as bytes."""
    return torch.from_numpy(images).to(device, non_blocking=True).float() / 255


class LabelledImages:
    """Batches for ``finetune``, on ``device``; can be iterated again and again.

    Args:
        loader: of the training images.
        device: of the models.
        classes: number of classes; None: without labels.
    """

    def __init__(self, loader: Loader, device: torch.device, classes: int | None = None) -> None:
        self.loader, self.device, self.classes = loader, device, classes

    def __iter__(self) -> Iterator[Labelled]:
        for batch in self.loader:
            images = as_floats(batch.images, self.device)
            targets = None
            if self.classes is not None:
                rows = batch_targets(batch, (images.shape[2], images.shape[3]), self.classes)
                targets = torch.from_numpy(rows).to(self.device, non_blocking=True)
            yield images, targets
