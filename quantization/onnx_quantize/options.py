"""Options of quantize-onnx.py that commands on checkpoints do not have."""

from __future__ import annotations

from dataclasses import dataclass

from quantization.errors import UserError
from quantization.option_fields import POSITIVE, Options, changed, option, refuse_unused
from quantization.options import CALIBRATION_METHODS, DECODES, DEFAULT_SIDE, RangeOptions, ReadOptions


@dataclass(frozen=True)
class OnnxImageOptions(ReadOptions):
    """Images for the calibration of an ONNX."""

    imgsz: int | None = option(
        None,
        f"longer image side in pixels, where the network leaves it open; default: {DEFAULT_SIDE}",
        kind=int,
        bounds=POSITIVE,
    )
    data: str | None = option(None, "YOLO data.yaml, whose training images are used", metavar="YAML")
    images: str | None = option(
        None,
        "instead of --data: a folder of images, a .txt list, or a .npy of (N, 3, H, W) as the network takes them (uint8 is "
        "divided by 255)",
        metavar="PATH",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data is None) == (self.images is None):
            raise UserError("name the calibration images with either --data data.yaml or --images PATH")
        if self.images is not None and self.images.endswith(".npy"):
            refuse_unused(changed(self, ("workers", "seed")), "image files to draw from and to read")


@dataclass(frozen=True)
class OnnxCalibrationOptions(RangeOptions):
    """How ranges are found where there is an ONNX alone."""

    method: str = option(
        "auto",
        "activation ranges by maximum, by the smallest error in the activations (mse), entropy or percentile; auto: maximum "
        "where boxes and scores have a branch each (YOLOv8 and later), else mse; sqnr needs a checkpoint",
        flag="--calib-method",
        choices=("auto", *CALIBRATION_METHODS),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "sqnr":
            raise UserError(
                "--calib-method sqnr takes gradients of the detections, which ONNX Runtime does not compute: use mse, or "
                "quantize the checkpoint in its checkout"
            )


@dataclass(frozen=True)
class OnnxGraphOptions(Options):
    """How the parts of an ONNX that are not quantized are written."""

    fp16_remainder: bool = option(
        False, "FP16 for what is not quantized, for strongly typed TensorRT (11; 10 with --stronglyTyped)"
    )
    decode: str = option(
        "formula",
        "boxes from distributions over distances (YOLOv8 and its successors): one matrix product, which TensorRT runs "
        "faster, or as in the float ONNX; the output is the same",
        choices=DECODES,
        advanced=True,
    )
