"""Where a stem is faster in float: the networks that were measured."""

from __future__ import annotations

import pytest

from quantization.onnx_graph.stem import faster_in_float


@pytest.mark.parametrize(
    "kernel, strides, splits, is_float",
    [
        ((3, 3), (1, 1), False, False),  # yolov7
        ((6, 6), (2, 2), False, True),  # yolov5
        ((3, 3), (2, 2), False, False),  # yolov8, 11, 26; yolov7-tiny with a pair
        ((3, 3), (2, 2), True, True),  # yolov7-tiny without
        ((3, 3), (1, 1), True, False),
        ((3, 5), (2, 2), False, True),  # one large side, one strided
        ((6, 6), (1, 2), False, True),
    ],
)
def test_measured_stems(kernel: tuple[int, int], strides: tuple[int, int], splits: bool, is_float: bool) -> None:
    assert faster_in_float(kernel, strides, splits) == is_float
