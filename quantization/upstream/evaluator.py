"""An evaluator with an upstream's own choices: IoU threshold, rectangles, score of a single class."""

from __future__ import annotations

from torch import nn

from quantization.data.images import Dataset
from quantization.errors import UserError
from quantization.evaluation.coco import Evaluator
from quantization.options import DataOptions
from quantization.upstream.checkout import UPSTREAMS


def make_evaluator(
    name: str, options: DataOptions, dataset: Dataset, classes: int, model: nn.Module | None = None
) -> Evaluator:
    """An evaluator of the validation images.

    Args:
        name: "yolov5" or "yolov7".
        options: images and thresholds.
        dataset: its validation images are used.
        classes: number of classes of the network.
        model: a torch model, evaluated in rectangles unless the options ask for squares; None: always in squares.

    Raises:
        UserError: the annotations do not fit.
    """
    stride = None if model is None or options.square else int(model.stride.max())
    return Evaluator(
        dataset,
        classes,
        (options.imgsz, options.imgsz),
        options.batch_size,
        options.workers,
        stride,
        options.confidence,
        UPSTREAMS[name].iou if options.nmsthres is None else options.nmsthres,
        name == "yolov7",
    )


def check_size(size: int, model: nn.Module, flag: str) -> None:
    """Refuse an image size that the model cannot take.

    Raises:
        UserError: ``size`` is no multiple of the model's stride.
    """
    stride = int(model.stride.max())
    if size % stride or size <= 0:
        raise UserError(
            f"{flag} {size} is no multiple of the model's stride {stride}: use {max(stride, round(size / stride) * stride)}"
        )
