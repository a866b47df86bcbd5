"""The height and width that images are brought to: a network's own, or what --imgsz says where it leaves them open."""

from __future__ import annotations

from typing import Optional, Tuple

from quantization.errors import UserError
from quantization.options import DEFAULT_SIDE

FixedSize = Tuple[Optional[int], Optional[int]]  # height, width; None: open


def input_size(fixed: FixedSize, asked: int | None, file: str) -> tuple[int, int]:
    """Height and width of a network's input.

    Args:
        fixed: what the network's file says of it.
        asked: ``--imgsz``, the longer side; None: it was not given.
        file: the network, for the message.

    Raises:
        UserError: ``--imgsz`` contradicts the file.
    """
    height, width = fixed
    if height is not None and width is not None:
        if asked is not None and asked != max(height, width):
            raise UserError(f"--imgsz {asked}: {file} takes {height} x {width} alone: leave the option out")
        return height, width
    side = DEFAULT_SIDE if asked is None else asked
    return side if height is None else height, side if width is None else width
