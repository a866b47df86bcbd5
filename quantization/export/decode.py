"""The head's decode as one formula on its raw maps, before the transpose.

    upstream, per map after the transpose:   xy = (2 s - 0.5 + grid) * stride    wh = (2 s)^2 * anchor    score = s
    here, per map before it:                 s * (s * B + A) + X + Y             with s = sigmoid(map)

A, B have one value per channel: A = 2 stride for x and y, 1 for scores; B = 4 anchor for width and height; 0 elsewhere.
X and Y hold (grid - 0.5) * stride for the channels x and y. It is the same function and the same output. Upstream's form
takes a third of yolov5s' INT8 engine: it splits, concatenates and transposes the whole output.

A and B are repeated along the width. With one value per channel TensorRT 8.6 makes a Scale layer of each multiplication and
addition, which nothing fuses with; like this, sigmoid and formula are one pointwise layer. yolov5s, batch 16, 640 px, H100,
images per second against upstream's decode: 1.078 with the repetition, 1.012 without it (docs/placement.md).
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Iterator

import torch
from torch import Tensor, nn

from quantization.upstream.model import head_path

LOG = logging.getLogger("quantization")
HEADS = ("Detect", "Segment", "IDetect", "IAuxDetect")  # whose decode is the formula


def decode_constants(head: Any, level: int, shape: tuple[int, int], numbers: int) -> tuple[Tensor, ...]:
    """A, B, X and Y of the formula.

    Args:
        head: an upstream head of ``HEADS``.
        level: number of the map.
        shape: its height and width, cells.
        numbers: channels per anchor that are decoded: 5 + classes.

    Returns:
        (1, C, 1, width) three times and (1, C, height, 1), with C = anchors * numbers.
    """
    stride = float(head.stride[level])
    device = head.m[level].weight.device
    anchors = head.anchors[level].float() * stride  # (anchors, 2), pixels; both upstreams keep them in strides
    linear = torch.ones(head.na, numbers, device=device)
    square, along_x, along_y = (torch.zeros(head.na, numbers, device=device) for _ in range(3))
    linear[:, :2], linear[:, 2:4] = 2 * stride, 0
    square[:, 2:4] = 4 * anchors
    along_x[:, 0] = along_y[:, 1] = stride
    height, width = shape
    columns = torch.arange(width, device=device).view(1, 1, 1, -1) - 0.5
    rows = torch.arange(height, device=device).view(1, 1, -1, 1) - 0.5
    a, b, x, y = (part.reshape(1, -1, 1, 1) for part in (linear, square, along_x, along_y))
    a, b = (part.expand(-1, -1, -1, width).contiguous() for part in (a, b))
    return a, b, x * columns, y * rows


def decode(head: Any, raw: Tensor, constants: tuple[Tensor, ...]) -> Tensor:
    """Boxes of one map.

    Args:
        head: an upstream head of ``HEADS``.
        raw: (B, anchors * no, height, width), the output of its convolution.
        constants: ``decode_constants`` of that level and shape.

    Returns:
        (B, anchors * height * width, no): centre x, centre y, width, height in pixels, scores, mask coefficients.
    """
    height, width = int(raw.shape[2]), int(raw.shape[3])
    numbers = 5 + head.nc
    masks = None
    if head.no > numbers:  # a segmentation head's mask coefficients stay as they are
        parts = raw.reshape(-1, head.na, head.no, height * width)
        raw, masks = parts[:, :, :numbers].reshape(-1, head.na * numbers, height, width), parts[:, :, numbers:]
    a, b, x, y = constants
    share = torch.sigmoid(raw)
    boxes = (share * (share * b + a) + x + y).reshape(-1, head.na, numbers, height * width)
    if masks is not None:
        boxes = torch.cat((boxes, masks), 2)
    return boxes.permute(0, 1, 3, 2).reshape(-1, head.na * height * width, head.no)


@contextlib.contextmanager
def formula_decode(model: nn.Module) -> Iterator[None]:
    """Context in which the head of a fused model decodes by the formula; one of another kind keeps its own, with a note."""
    head: Any = model.get_submodule(head_path(model))
    kind = type(head).__name__
    if kind not in HEADS:
        LOG.info("The decode stays as upstream writes it: that of %s is no formula of this kind", kind)
        yield
        return

    # made in the plain forward pass before the trace, which then finds them as constants
    known: dict[tuple[int, int, int], tuple[Tensor, ...]] = {}

    def boxes_of(level: int, raw: Tensor) -> Tensor:
        key = (level, int(raw.shape[2]), int(raw.shape[3]))
        if key not in known:
            known[key] = decode_constants(head, level, key[1:], 5 + head.nc)
        return decode(head, raw, known[key])

    def forward(maps: list[Tensor]) -> Any:
        protos = head.proto(maps[0]) if hasattr(head, "proto") else None
        boxes = torch.cat([boxes_of(level, head.m[level](maps[level])) for level in range(head.nl)], 1)
        return boxes if protos is None else (boxes, protos)

    before = vars(head).get("forward")
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before
