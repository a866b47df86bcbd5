"""Facts of an upstream's networks that evaluation asks for."""

from __future__ import annotations

from torch import nn

from quantization.data.checks import check_channels
from quantization.errors import UserError
from quantization.evaluation.network import Network, data_classes
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.options import DataOptions
from quantization.upstream.checkout import UPSTREAMS
from quantization.upstream.model import class_count, class_names, largest_stride, layers_of


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
    check_channels(image_channels(model), file)
    check_size(options.imgsz, model, "--imgsz")
    size = (options.imgsz, options.imgsz)
    stride = largest_stride(model)
    origin = UPSTREAMS[name].origin
    names = tuple(class_names(model))
    return Network(name, class_count(model), names, size, origin.iou, origin.objectness_only, stride)


def onnx_network(name: str, network: OnnxPredictor, file: str, options: DataOptions, side: int | None) -> Network:
    """Facts of an ONNX.

    Args:
        name: the upstream that it comes from.
        network: the ONNX.
        file: its name, for messages.
        options: the data set, which tells the number of classes where the ONNX does not.
        side: ``--imgsz``; None: it was not given.

    Raises:
        UserError: neither tells it, or the image size contradicts the ONNX.
    """
    size = network.image_size(side)
    names = tuple(network.class_names or ())
    classes = network.classes or data_classes(options, file)
    origin = UPSTREAMS[name].origin
    return Network(name, classes, names, size, origin.iou, origin.objectness_only)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model reads: Focus and ReOrg stack four pixels of an image."""
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    stacked = type(layers_of(model)[0]).__name__ in ("Focus", "ReOrg")
    return first.in_channels // 4 if stacked else first.in_channels


def check_size(size: int, model: nn.Module, flag: str) -> None:
    """Refuse an image size that the model cannot take.

    Raises:
        UserError: ``size`` is no multiple of the model's stride.
    """
    stride = largest_stride(model)
    if size % stride or size <= 0:
        raise UserError(
            f"{flag} {size} is no multiple of the model's stride {stride}: use {max(stride, round(size / stride) * stride)}"
        )
