"""The image side that a network was trained at, where its checkpoint tells: train.py of YOLOv5 keeps its options in it."""

from __future__ import annotations

import logging
from typing import Any, Mapping

from torch import nn

from quantization.upstream.model import largest_stride

LOG = logging.getLogger("quantization")
ATTRIBUTE = "trained_side"  # of a loaded model
ENTRIES = ("opt", "train_args")  # of a checkpoint: options of train.py, in YOLOv5 and in its forks


def keep_trained_side(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Note on a loaded model what its checkpoint says of its training."""
    for entry in ENTRIES:
        options = content.get(entry)
        values = options if isinstance(options, dict) else getattr(options, "__dict__", {})
        side = values.get("imgsz")
        side = side[0] if isinstance(side, (list, tuple)) and side else side
        if type(side) is int and side > 0:
            setattr(model, ATTRIBUTE, side)


def trained_side(model: nn.Module) -> int | None:
    """Longer image side in training, pixels; None: its checkpoint does not tell. train.py rounds up to the stride."""
    side = getattr(model, ATTRIBUTE, None)
    if type(side) is not int:
        return None
    stride = largest_stride(model)
    return -(-side // stride) * stride


def warn_of_other_size(model: nn.Module, file: str, side: int, flag: str) -> None:
    """Warn where a network is calibrated at another image side than it was trained at.

    Args:
        model: of ``checkpoint.load``.
        file: the checkpoint.
        side: longer image side, pixels.
        flag: the option that sets it.
    """
    trained = trained_side(model)
    if trained is not None and trained != side:
        LOG.warning(
            "WARNING: %s was trained at %d pixels, and is calibrated for %d: give %s %d, unless the engine will run at %d",
            *(file, trained, side, flag, trained, side),
        )
