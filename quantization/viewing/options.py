"""What predict.py is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from quantization.errors import UserError
from quantization.option_fields import POSITIVE, Bounds, Options, argument, changed, group, option, refuse_unused
from quantization.options import DEFAULT_SIDE, OUTPUT_FORMAT_HELP, OUTPUT_FORMATS, LoadOptions

SHARE = Bounds(least=0, most=1)


@dataclass(frozen=True)
class PredictCommand(Options):
    """Draw what a model finds, or how two models differ, with the worst images of a set first."""

    model: str = argument(".pt of train.py or of this bundle (in a checkout), .onnx, or a TensorRT plan", "MODEL")
    images: tuple[str, ...] = argument(
        "images, folders, .txt lists, or one video; without any: the validation images of --data or --cocodir, whose "
        "labels then count too",
        "IMAGES",
        many=True,
    )
    out: str = option("predictions", "folder to write, new or empty: index.html, pictures/", metavar="DIR")
    compare: str | None = option(None, "second model: boxes that it loses, finds or moves are marked", metavar="MODEL")
    data: str | None = option(None, "YOLO data.yaml: class names; without IMAGES its images and labels", metavar="YAML")
    cocodir: str | None = option(None, "COCO-layout folder instead of --data and IMAGES", metavar="DIR")
    conf: float = option(0.25, "minimum detection score, as of upstream's detect.py", bounds=SHARE)
    iou: float = option(0.45, "IoU threshold of non-maximum suppression, as of upstream's detect.py", bounds=SHARE)
    imgsz: int | None = option(
        None, f"image side in pixels, where no model fixes it; default: {DEFAULT_SIDE}", kind=int, bounds=POSITIVE
    )
    worst: int = option(40, "images on the page; pictures/ has all", metavar="N", bounds=POSITIVE)
    every: int = option(1, "of a video, take every n-th frame", metavar="N", bounds=POSITIVE)
    objectness: bool = option(False, "score one-class models by objectness, as YOLOv7 does; of a YOLOv7 .pt always")
    output_format: str = option(OUTPUT_FORMATS[0], OUTPUT_FORMAT_HELP, choices=OUTPUT_FORMATS)
    run: LoadOptions = group(LoadOptions, ".pt files")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data and self.cocodir:
            raise UserError("name the data set with either --data or --cocodir")
        if self.images and self.cocodir:
            raise UserError("--cocodir brings its own images: leave IMAGES out, or give --data for class names alone")
        if not (self.images or self.data or self.cocodir):
            raise UserError("no images: name images, folders, a video, --data data.yaml or --cocodir DIR")
        if not self.images:
            refuse_unused(changed(self, ("every",)), "a video")
        if not any(model.endswith(".pt") for model in (self.model, self.compare or "")):
            refuse_unused(changed(self.run), "a .pt")
