"""A data set and an evaluator for a network, with its upstream's own choices, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from quantization.data.checks import CheckedDataset, Needs, check_channels, check_dataset
from quantization.data.dataset import Dataset, open_dataset
from quantization.data.images import Loader
from quantization.errors import UserError
from quantization.evaluation.categories import is_single_class
from quantization.evaluation.coco import Evaluator, Thresholds
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.options import DataOptions
from quantization.upstream.checkout import UPSTREAMS
from quantization.upstream.model import class_count, class_names


@dataclass(frozen=True)
class Network:
    """What evaluation has to know of a network.

    Attributes:
        upstream: "yolov5" or "yolov7".
        classes: number of classes.
        names: what it calls them; empty if it does not say.
        size: height and width of its input, pixels.
        stride: of a torch model, which takes rectangles; None: it takes ``size`` alone.
    """

    upstream: str
    classes: int
    names: tuple[str, ...]
    size: tuple[int, int]
    stride: int | None = None


def torch_network(name: str, model: nn.Module, file: str, options: DataOptions) -> Network:
    """Facts of a loaded checkpoint.

    Args:
        name: "yolov5" or "yolov7".
        model: fused.
        file: the checkpoint, for messages.
        options: image size.

    Raises:
        UserError: it does not read images of three channels, or the image size does not fit.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    check_channels(image_channels(model, first), file)
    check_size(options.imgsz, model, "--imgsz")
    return Network(name, class_count(model), tuple(class_names(model)), (options.imgsz, options.imgsz), int(model.stride.max()))


def image_channels(model: nn.Module, first: nn.Conv2d) -> int:
    """Channels of the images that a model reads: Focus and ReOrg give four pixels of an image as channels."""
    layers: Any = model.model
    stacked = type(layers[0]).__name__ in ("Focus", "ReOrg")
    return first.in_channels // 4 if stacked else first.in_channels


def onnx_network(name: str, network: OnnxPredictor, options: DataOptions) -> Network:
    """Facts of an ONNX."""
    return Network(name, network.classes, tuple(network.class_names or ()), network.image_size((options.imgsz, options.imgsz)))


def open_checked(
    options: DataOptions, network: Network, train: bool = False, train_labels: bool = False, val: bool = True
) -> CheckedDataset:
    """The data set, without what upstream leaves out, and with annotations that fit the network.

    Args:
        options: which data set.
        network: that will be calibrated, trained or evaluated on it.
        train: whether training images are read.
        train_labels: whether their labels are.
        val: whether validation images are.

    Raises:
        UserError: something in the data set has to change.
    """
    dataset = open_dataset(options.cocodir, options.data)
    if val and dataset.annotations is not None:
        truth = GroundTruth(dataset, network.classes, network.names)
        if truth.uses_labels:
            dataset = replace(dataset, annotations=None)
    single_cls = is_single_class(network.classes, network.names)
    needs = Needs(network.upstream, network.classes, single_cls, train, train_labels, val)
    return check_dataset(dataset, needs)


def make_evaluator(options: DataOptions, network: Network, dataset: Dataset) -> Evaluator:
    """An evaluator of the validation images.

    Args:
        options: batches and thresholds.
        network: torch models are evaluated in rectangles, unless the options ask for squares.
        dataset: checked.

    Raises:
        UserError: the annotations do not fit.
    """
    upstream = UPSTREAMS[network.upstream]
    loader = Loader(
        dataset.val,
        network.size,
        options.batch_size,
        options.workers,
        None if options.square else network.stride,
    )
    iou = upstream.iou if options.nmsthres is None else options.nmsthres
    thresholds = Thresholds(options.confidence, iou, network.upstream == "yolov7")
    return Evaluator(dataset, network.classes, loader, thresholds, network.names)


def first_images(dataset: Dataset, count: int | None) -> Dataset:
    """The first ``count`` validation images; None: all."""
    return dataset.with_val(dataset.val[:count])


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
