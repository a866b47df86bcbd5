"""The stem, the convolution that reads the image: where float is faster than INT8."""

from __future__ import annotations

from typing import Sequence

IMAGE_CHANNELS = 4  # at most: RGB, or with alpha; Focus and ReOrg give 12
LARGEST_INT8_KERNEL = 3  # height and width in pixels, with a stride; 4 and 5 have not been measured


def faster_in_float(kernel: Sequence[int], strides: Sequence[int], splits: bool) -> bool:
    """Whether a convolution that reads the image is faster in float, Reformats included: ``--stem auto``.

    INT8 kernels read 32 channels, to which the image is padded, and FP16 kernels 4; but TensorRT 8.6 has INT8 kernels for 3x3
    with stride 2 that read the image as it is. Measured at 640 x 640, batch 16 (docs/placement.md, "The stem"):

    - stride 1, 3x3 (yolov7): 740 us in INT8, about 929 in FP16, on an H200;
    - stride 2, 6x6 (yolov5s): 758 us in INT8, 383 in FP16, on an H200;
    - stride 2, 3x3, SiLU (yolov8s, yolo11s, yolo26s): INT8 does 1.10, 1.08 and 1.07 times the images of float, on an H200;
    - the same with LeakyReLU (yolov7-tiny), which is not fused: INT8 does 0.965 times the images of float on an H200 and
      0.972 on an H100, but with Q/DQ before the activation 1.092 and 1.077.

    Other sizes are a guess: with a stride all above 3x3 count as 6x6, with Q/DQ before the activation too, since that does not
    change the padding, and all below as 3x3.

    Args:
        kernel: its height and width in pixels.
        strides: down and across.
        splits: its activation is of a kind that TensorRT does not fuse with it and no Q/DQ stands between them, so that it
            emits float.
    """
    return max(strides) > 1 and (splits or max(kernel) > LARGEST_INT8_KERNEL)
