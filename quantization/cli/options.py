"""What each command takes: its own options, and the groups that it shares with others."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantization.errors import UserError
from quantization.option_fields import (
    NOT_NEGATIVE,
    POSITIVE,
    Options,
    argument,
    changed,
    group,
    option,
    refuse_unused,
    same_option,
    typed_words,
)
from quantization.options import (
    DEFAULT_SIDE,
    OUTPUT_FORMAT_HELP,
    OUTPUT_FORMATS,
    CalibrationOptions,
    DataOptions,
    ExportOptions,
    LoadOptions,
    PlacementOptions,
    QatOptions,
    RunOptions,
)

EVALUATION = ("square", "confidence", "nmsthres")  # fields of DataOptions that evaluation alone reads


@dataclass(frozen=True)
class QuantizeCommand(Options):
    """PTQ, and QAT when --qat is given."""

    weight: str = argument("float .pt from train.py")
    ptq: str = option("ptq.pt", "PTQ checkpoint to write", metavar="FILE")
    qat: str | None = option(None, "QAT checkpoint to write; without it there is no QAT", metavar="FILE")
    summary: str = option("summary.json", "JSON to write: figures, options, versions, groups", metavar="FILE")
    eval_origin: bool = option(False, "measure the float model's mAP")
    eval_ptq: bool = option(False, "measure the PTQ model's mAP")
    max_drop: float | None = option(
        None,
        "leave the fewest layers in float with which the validation images do not show a larger loss of mAP@0.5:0.95 "
        "against the float model than this many points (of 100); measures both",
        kind=float,
        metavar="POINTS",
        bounds=NOT_NEGATIVE,
    )
    resume: bool = option(
        False,
        "continue the unfinished run of --summary, with the options that it was started with; start it if there is none",
    )
    restart: bool = option(False, "discard the unfinished run of --summary and start again", advanced=True)
    save_every: float = option(
        10.0,
        "minutes between saves of QAT's state, which is also saved before and after each epoch's evaluation",
        metavar="MINUTES",
        bounds=NOT_NEGATIVE,
        advanced=True,
    )
    placement: PlacementOptions = group(PlacementOptions, "placement")
    calibration: CalibrationOptions = group(CalibrationOptions, "calibration")
    training: QatOptions = group(QatOptions, "QAT")
    images: DataOptions = group(DataOptions, "data")
    run: RunOptions = group(RunOptions, "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_run(self, "--qat FILE")

    @property
    def measures(self) -> bool:
        """Whether anything is evaluated."""
        return bool(self.eval_origin or self.eval_ptq or self.qat or self.max_drop is not None)


@dataclass(frozen=True)
class ExportCommand(Options):
    """Checkpoint to Q/DQ ONNX."""

    weight: str = argument("quantized (or float) .pt")
    save: str | None = option(None, "ONNX to write; default: WEIGHT with .onnx", metavar="FILE")
    compare_images: str | None = option(
        None,
        "images on which ONNX Runtime is compared with torch: a folder, a .txt list or a data.yaml; default: drawn ones",
        metavar="DIR|LIST",
    )
    triton: str | None = option(
        None,
        "write the model into a Triton model repository too; with --dynamic, --batch is its largest",
        metavar="DIR",
        advanced=True,
    )
    deepstream: str | None = option(
        None,
        "write a configuration and output parser for DeepStream's nvinfer too",
        metavar="DIR",
        advanced=True,
    )
    variants: str | None = option(
        None,
        "instead of one ONNX, write those of several placements of stem, head and sums into this folder, for bench-engine.py "
        "--tune: of a float .pt, calibrated once on --data or --cocodir, or of a quantized .pt, those with fewer quantizers",
        metavar="DIR",
    )
    run: LoadOptions = group(LoadOptions, "run")
    graph: ExportOptions = group(ExportOptions, "graph")
    placement: PlacementOptions = group(
        PlacementOptions,
        "--variants of a float .pt",
        without=("head", "stem", "activation_pairs", "rules", "exporter"),
    )
    calibration: CalibrationOptions = group(CalibrationOptions, "--variants of a float .pt")
    images: DataOptions = group(  # calibrated in the size of the ONNX
        DataOptions, "--variants of a float .pt", without=("imgsz", "square", "confidence", "nmsthres")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        flag = self.calibration_flag()
        if self.variants is None and flag is not None:
            raise UserError(f"{flag} is for --variants; a checkpoint has been calibrated: leave the option out")
        for name, value in (("--save", self.save), ("--triton", self.triton), ("--deepstream", self.deepstream)):
            if self.variants is not None and value is not None:
                raise UserError(f"{name} is for one ONNX, --variants writes several: give one of the two options")

    def calibration_flag(self) -> str | None:
        """The first option given that is for the calibration of ``--variants``; None: there is none."""
        words = [word for part in (self.placement, self.calibration, self.images) for word in typed_words(part)]
        return next((word for word in words if word.startswith("--")), None)


@dataclass(frozen=True)
class SensitiveCommand(Options):
    """Which layers cost the most accuracy."""

    weight: str = argument("float or quantized .pt")
    summary: str = option("sensitive-summary.json", "ranking to write; a plot goes beside it as .png", metavar="FILE")
    metric: str = option(
        "map",
        "map: mAP with each layer in float in turn; sqnr: error in the detections of each unit that can be left in float, "
        "from one pass over training images",
        choices=("map", "sqnr"),
    )
    num_image: int | None = option(
        None,
        "number of images to use; default: map all of validation, sqnr 64 of training",
        kind=int,
        bounds=POSITIVE,
    )
    placement: PlacementOptions = group(PlacementOptions, "placement")
    calibration: CalibrationOptions = group(CalibrationOptions, "calibration")
    images: DataOptions = group(DataOptions, "data")
    run: RunOptions = group(RunOptions, "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric != "map":
            refuse_unused(changed(self.images, EVALUATION), "--metric map")
        _check_rules(self)


@dataclass(frozen=True)
class EvaluationCommand(Options):
    """COCO mAP by pycocotools."""

    weight: str = argument("float or quantized .pt, or an .onnx")
    save_json: str | None = option(None, "write the figures to this file", metavar="FILE")
    save_samples: str | None = option(
        None, "write what a later --against compares with: samples of the figures over the images", metavar="NPZ"
    )
    against: str | None = option(
        None,
        "give the differences to this network too, each with its 95 % interval: a file that --save-samples wrote for the "
        "float model on the same images",
        metavar="NPZ",
    )
    upstream_ap: bool = option(
        False,
        "print upstream's own AP of the same detections too: its formula gives 0.9 to 1.6 points more on COCO",
        advanced=True,
    )
    output_format: str = option(OUTPUT_FORMATS[0], OUTPUT_FORMAT_HELP, choices=OUTPUT_FORMATS)
    imgsz: int | None = option(
        None,
        f"longer image side in pixels, where an .onnx leaves it open; default: {DEFAULT_SIDE}",
        kind=int,
        bounds=POSITIVE,
    )
    images: DataOptions = group(DataOptions, "data", without=("imgsz",))
    run: RunOptions = group(RunOptions, "run")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_format != OUTPUT_FORMATS[0] and not self.weight.endswith(".onnx"):
            raise UserError(f"--output-format is for an .onnx; {self.weight} is a checkpoint: leave the option out")

    def checkpoint_images(self) -> DataOptions:
        """Images for a checkpoint, which takes every size."""
        return self.images if self.imgsz is None else replace(self.images, imgsz=self.imgsz)


@dataclass(frozen=True)
class DeployCommand(Options):
    """All of it in one folder: PTQ, QAT with --qat, the better one as ONNX, and its engine where TensorRT is."""

    weight: str = argument("float .pt from train.py")
    out: str = option("runs/int8", "folder of the run: checkpoints, ONNX, figures, report.html", metavar="DIR")
    qat: bool = option(False, "train too, and take QAT's checkpoint where it is better than PTQ beyond the noise")
    max_drop: float | None = same_option(QuantizeCommand, "max_drop")
    resume: bool = option(False, "go on with the run in --out, with its options; start it if there is none")
    restart: bool = same_option(QuantizeCommand, "restart")
    save_every: float = same_option(QuantizeCommand, "save_every")
    placement: PlacementOptions = group(PlacementOptions, "placement")
    calibration: CalibrationOptions = group(CalibrationOptions, "calibration")
    training: QatOptions = group(QatOptions, "QAT")
    images: DataOptions = group(DataOptions, "data", without=("square",))  # as the engine sees them
    run: RunOptions = group(RunOptions, "run")
    graph: ExportOptions = group(ExportOptions, "graph", without=("size", "exporter"))  # --imgsz, and that of placement

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_run(self, "--qat")


def _check_run(options: QuantizeCommand | DeployCommand, qat: str) -> None:
    """Refuse what contradicts itself or has no effect.

    Args:
        options: of the command.
        qat: how its option for QAT is typed.
    """
    if options.resume and options.restart:
        raise UserError("--resume goes on with a run, --restart discards it: give one of them")
    if not options.qat and not options.resume:  # a run that is resumed has its own --qat
        refuse_unused([*changed(options.training), *changed(options, ("save_every",))], qat)
    _check_rules(options)


def _check_rules(options: QuantizeCommand | DeployCommand | SensitiveCommand) -> None:
    """Refuse what the rules alone heed beside ``--no-rules``, with which ``--head`` is float or int8."""
    if options.placement.rules:
        return
    names = ("stem", "activation_pairs", *(("head",) if options.placement.head in ("shared", "input") else ()))
    unused = [*changed(options.placement, names), *changed(options.calibration, ("group_scale",))]
    refuse_unused(unused, "the rules, which --no-rules turns off")


COMMANDS = {
    "deploy": DeployCommand,
    "quantize": QuantizeCommand,
    "export": ExportCommand,
    "sensitive": SensitiveCommand,
    "test": EvaluationCommand,
}
