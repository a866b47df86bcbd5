"""Architecture tables of yolov7 and yolov7-tiny, which the PyPI package lacks.

A row is what upstream's parse_model reads: [from, number, module, arguments]. The tables are made of the few blocks
that the networks repeat; where a clone is available, test_checkouts.py compares the networks with those of its yaml.
"""

from __future__ import annotations

from typing import Any, List, Sequence

Row = List[Any]
LEAKY = "nn.LeakyReLU(0.1)"


def _conv(channels: int, kernel: int = 1, stride: int = 1, source: int = -1) -> Row:
    return [source, 1, "Conv", [channels, kernel, stride]]


def _leaky(channels: int, kernel: int = 1, stride: int = 1, source: int = -1) -> Row:
    return [source, 1, "Conv", [channels, kernel, stride, None, 1, LEAKY]]


def _concat(*sources: int) -> Row:
    return [list(sources), 1, "Concat", [1]]


def _upsample() -> Row:
    return [-1, 1, "nn.Upsample", [None, 2, "nearest"]]


def _pool() -> Row:
    return [-1, 1, "MP", []]


def _elan(width: int, narrow: int, channels: int, sources: Sequence[int]) -> list[Row]:
    """Two 1x1 branches, four 3x3 in a chain, a concatenation, a 1x1."""
    chain = [_conv(narrow, 3) for _ in range(4)]
    return [_conv(width), _conv(width, source=-2), *chain, _concat(*sources), _conv(channels)]


def _elan_backbone(width: int, channels: int) -> list[Row]:
    return _elan(width, width, channels, (-1, -3, -5, -6))


def _elan_head(channels: int) -> list[Row]:
    return _elan(channels, channels // 2, channels, (-1, -2, -3, -4, -5, -6))


def _down(channels: int, *joined: int) -> list[Row]:
    """Pooling and strided convolution side by side; ``joined``: a further layer to concatenate."""
    return [_pool(), _conv(channels), _conv(channels, source=-3), _conv(channels, 3, 2), _concat(-1, -3, *joined)]


def yolov7(head: str) -> dict[str, Any]:
    """yolov7. ``head``: IDetect (training) or Detect (deploy)."""
    backbone = [
        _conv(32, 3),
        _conv(64, 3, 2),
        _conv(64, 3),
        _conv(128, 3, 2),
        *_elan_backbone(64, 256),
        *_down(128),
        *_elan_backbone(128, 512),
        *_down(256),
        *_elan_backbone(256, 1024),
        *_down(512),
        *_elan_backbone(256, 1024),
    ]
    neck = [
        [-1, 1, "SPPCSPC", [512]],
        _conv(256),
        _upsample(),
        _conv(256, source=37),
        _concat(-1, -2),
        *_elan_head(256),
        _conv(128),
        _upsample(),
        _conv(128, source=24),
        _concat(-1, -2),
        *_elan_head(128),
        *_down(128, 63),
        *_elan_head(256),
        *_down(256, 51),
        *_elan_head(512),
        *([source, 1, "RepConv", [channels, 3, 1]] for source, channels in ((75, 256), (88, 512), (101, 1024))),
        [[102, 103, 104], 1, head, ["nc", "anchors"]],
    ]
    anchors = [[12, 16, 19, 36, 40, 28], [36, 75, 76, 55, 72, 146], [142, 110, 192, 243, 459, 401]]
    return _table(anchors, backbone, neck)


def _elan_tiny(width: int, channels: int) -> list[Row]:
    return [
        _leaky(width),
        _leaky(width, source=-2),
        _leaky(width, 3),
        _leaky(width, 3),
        _concat(-1, -2, -3, -4),
        _leaky(channels),
    ]


def yolov7_tiny(head: str) -> dict[str, Any]:
    """yolov7-tiny. ``head``: IDetect (training) or Detect (deploy). Kept long: a table, read as one."""
    backbone = [
        _leaky(32, 3, 2),
        _leaky(64, 3, 2),
        *_elan_tiny(32, 64),
        _pool(),
        *_elan_tiny(64, 128),
        _pool(),
        *_elan_tiny(128, 256),
        _pool(),
        *_elan_tiny(256, 512),
    ]
    neck = [
        _leaky(256),
        _leaky(256, source=-2),
        *([-1 - i, 1, "SP", [size]] for i, size in enumerate((5, 9, 13))),
        _concat(-1, -2, -3, -4),
        _leaky(256),
        _concat(-1, -7),
        _leaky(256),
        _leaky(128),
        _upsample(),
        _leaky(128, source=21),
        _concat(-1, -2),
        *_elan_tiny(64, 128),
        _leaky(64),
        _upsample(),
        _leaky(64, source=14),
        _concat(-1, -2),
        *_elan_tiny(32, 64),
        _leaky(128, 3, 2),
        _concat(-1, 47),
        *_elan_tiny(64, 128),
        _leaky(256, 3, 2),
        _concat(-1, 37),
        *_elan_tiny(128, 256),
        *(_leaky(channels, 3, source=source) for source, channels in ((57, 128), (65, 256), (73, 512))),
        [[74, 75, 76], 1, head, ["nc", "anchors"]],
    ]
    anchors = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
    return _table(anchors, backbone, neck)


def _table(anchors: list[list[int]], backbone: list[Row], head: list[Row]) -> dict[str, Any]:
    return {
        "nc": 80,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": anchors,
        "backbone": backbone,
        "head": head,
    }
