"""Every option of the commands, with its default, choices, bounds and help text, once.

The command line's parser is built from these dataclasses, summary.json and checkpoints record them, and benchmarks and
tests make them directly. Making one checks it, so that no wrong value gets further than this.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantization.errors import UserError
from quantization.option_fields import NOT_NEGATIVE, POSITIVE, Bounds, Options, changed, option, refuse_unused

HEADS = ("auto", "shared", "float", "input", "int8")
STEMS = ("auto", "float", "int8")
ACTIVATION_PAIRS = ("none", "stem", "all")
CALIBRATION_METHODS = ("sqnr", "mse", "entropy", "percentile", "max")
GROUP_SCALES = ("error", "joint", "max")
SCHEDULES = ("steps", "cosine")
LOSSES = ("normalised", "mse")
AMP_TYPES = ("bf16", "fp16", "off")
LOWEST_OPSET = {"torchscript": 13, "dynamo": 18}  # per-channel Q/DQ came with opset 13
EXPORTERS = tuple(LOWEST_OPSET)
DECODES = ("formula", "upstream")
END2END_FORMS = ("trt", "onnx")
DEFAULT_SIDE = 640  # pixels
MOST_DETECTIONS = 3840  # TensorRT's limit of a TopK
OUTPUT_FORMATS = ("auto", "rows", "columns", "final", "efficient-nms")
OUTPUT_FORMAT_HELP = (
    "what an ONNX or engine puts out: rows (B, boxes, 5 + classes) of YOLOv5 and YOLOv7, columns (B, 4 + classes, boxes) of "
    "YOLOv8, final (B, K, 6) of networks without suppression, or the four outputs of EfficientNMS; auto: by their names "
    "and shapes"
)
BACKENDS = ("auto", "native", "pytorch-quantization")
BACKEND_VARIABLE = "QUANT_TOOLS_BACKEND"


@dataclass(frozen=True)
class ReadOptions(Options):
    """How images are read."""

    batch_size: int = option(10, "images per batch", bounds=POSITIVE)
    workers: int = option(4, "threads that read images", bounds=NOT_NEGATIVE, advanced=True)
    seed: int = option(0, "seed of image sampling and training order", bounds=NOT_NEGATIVE, advanced=True)


@dataclass(frozen=True)
class DataOptions(ReadOptions):
    """Which images, and how they are read and evaluated."""

    imgsz: int = option(DEFAULT_SIDE, "longer image side in pixels, a multiple of the stride", bounds=POSITIVE)
    cocodir: str | None = option(
        None, "COCO-layout folder: images/, train2017.txt, val2017.txt, annotations/ or labels/", metavar="DIR"
    )
    data: str | None = option(None, "YOLO data.yaml instead of --cocodir", metavar="YAML")
    square: bool = option(
        False, "evaluate on squares as a fixed-size engine does; without it on rectangles as upstream does"
    )
    confidence: float = option(0.001, "minimum detection score", bounds=Bounds(least=0, most=1), advanced=True)
    nmsthres: float | None = option(
        None,
        "IoU threshold of non-maximum suppression; default: the upstream's own, 0.6 for yolov5 and 0.65 for yolov7",
        kind=float,
        bounds=Bounds(least=0, most=1),
        advanced=True,
    )


@dataclass(frozen=True)
class LoadOptions(Options):
    """How a checkpoint is loaded."""

    device: str | None = option(None, "cpu, cuda:0 ...; default: the first GPU, or the CPU")
    trust_weights: bool = option(
        False,
        "load WEIGHT whatever it holds: a .pt can run code, so only for files that you made yourself",
        advanced=True,
    )


@dataclass(frozen=True)
class RunOptions(LoadOptions):
    """What the commands run on."""

    backend: str | None = option(
        None,
        f"quantizer backend (environment: {BACKEND_VARIABLE}); auto takes pytorch-quantization where it is installed",
        choices=BACKENDS,
        advanced=True,
    )


@dataclass(frozen=True)
class LayerOptions(Options):
    """Which layers are quantized."""

    ignore_policy: tuple[str, ...] = option(
        (),
        "more modules to leave in float: regular expressions for whole module paths, e.g. 'model\\.2\\..*'",
        kind=str,
        metavar="REGEX",
    )
    head: str = option(
        "auto",
        "the detect head's convolutions: float; input: they compute in float on INT8 inputs, and the layers before them emit "
        "INT8 (faster, less accurate); int8; shared: input for tensors that other layers read in INT8 anyway; auto: input for "
        "the largest of those alone, and int8 where boxes and scores have a branch each (YOLOv8 and later)",
        choices=HEADS,
    )
    stem: str = option(
        "auto",
        "the convolution that reads the image; auto: float where INT8 is slower, such as a strided one larger than 3x3",
        choices=STEMS,
    )
    activation_pairs: str = option(
        "stem",
        "quantize between an INT8 convolution and an activation that TensorRT may not take into its kernel, such as "
        "LeakyReLU; stem: of the convolution that reads the image; all: of every one",
        choices=ACTIVATION_PAIRS,
        advanced=True,
    )


@dataclass(frozen=True)
class PlacementOptions(LayerOptions):
    """Which layers are quantized, and which share a scale."""

    rules: bool = option(
        True,
        "quantize convolutions and linear layers only, each with a scale of its own (slower engines; for comparison)",
        flag="--no-rules",
        off=True,
        advanced=True,
    )
    exporter: str = option(
        "torchscript", "ONNX exporter that shows the graph to the rules", choices=EXPORTERS, advanced=True
    )


@dataclass(frozen=True)
class RangeOptions(Options):
    """What every calibration is asked for."""

    group_scale: str = option(
        "error",
        "how tensors that share a scale get it: smallest total error, one joint histogram, or the largest amax",
        choices=GROUP_SCALES,
        advanced=True,
    )
    batches: int = option(25, "batches of training images to calibrate on", flag="--calib-batches", bounds=POSITIVE)


@dataclass(frozen=True)
class CalibrationOptions(RangeOptions):
    """How ranges are found."""

    method: str = option(
        "sqnr",
        "activation ranges with the smallest error in the detections (sqnr) or in the activations themselves (mse: the "
        "published way), or by entropy, percentile or maximum",
        flag="--calib-method",
        choices=CALIBRATION_METHODS,
    )
    equalize: bool = option(
        True,
        "do not bring the channels behind ReLU and LeakyReLU to similar ranges first (which does not change what the float "
        "network computes)",
        flag="--no-equalize",
        off=True,
        advanced=True,
    )


@dataclass(frozen=True)
class QatOptions(Options):
    """How the quantized model is trained."""

    epochs: int = option(10, "number of epochs; the best by AP with all classes merged is kept", bounds=POSITIVE)
    iters: int | None = option(
        None, "steps per epoch; default: one pass over the training images, 30 to 200", kind=int, bounds=POSITIVE
    )
    lr: float = option(1e-4, "highest learning rate; the published one is 1e-5", bounds=Bounds(above=0))
    schedule: str = option(
        "cosine",
        "schedule of the learning rate; steps: the published one; cosine: warm-up, then a cosine",
        choices=SCHEDULES,
        advanced=True,
    )
    loss: str = option(
        "normalised",
        "loss of each layer's output against the float model's; mse: the published one; normalised: relative to the energy "
        "of the float model's output, so that all layers count the same",
        choices=LOSSES,
        advanced=True,
    )
    head_weight: float = option(
        0.0,
        "weight of the detect head's raw outputs in the loss; 0: only the layers before the head",
        metavar="W",
        bounds=NOT_NEGATIVE,
        advanced=True,
    )
    task_weight: float | None = option(
        None,
        "weight of upstream's own training loss, on the labels of the training images; default: 1 where there are labels "
        "and a head that it fits, else 0",
        kind=float,
        metavar="W",
        bounds=NOT_NEGATIVE,
        advanced=True,
    )
    supervision_stride: int = option(1, "supervise every n-th layer", bounds=POSITIVE, advanced=True)
    learn_scales: bool = option(False, "learn the scales too (LSQ)", advanced=True)
    ema: float = option(
        0.0,
        "evaluate and save a moving average of the weights with this decay, e.g. 0.99; 0: none",
        metavar="DECAY",
        bounds=Bounds(least=0, below=1),
        advanced=True,
    )
    amp: str = option("fp16", "mixed precision on a GPU", choices=AMP_TYPES, advanced=True)
    fall_back_to_ptq: bool = option(
        False,
        "write PTQ's weights to --qat where no epoch is better than PTQ by more than the 95 % interval",
        advanced=True,
    )

    @property
    def steps(self) -> int:
        """Steps per epoch, once the data are known (``qat.length.with_steps``)."""
        assert self.iters is not None
        return self.iters


@dataclass(frozen=True)
class ExportOptions(Options):
    """What the ONNX looks like."""

    size: tuple[int, ...] = option(
        (DEFAULT_SIDE,), "input size: N for a square, or H W", kind=int, metavar="N", bounds=POSITIVE
    )
    batch: int = option(1, "batch size", bounds=POSITIVE)
    dynamic: bool = option(False, "leave the batch size open")
    opset: int | None = option(
        None, "13 or newer (dynamo: 18); default: the lowest", kind=int, bounds=POSITIVE, advanced=True
    )
    exporter: str = option("torchscript", "torch's exporter", choices=EXPORTERS, advanced=True)
    decode: str = option(
        "formula",
        "the head's decode: one formula on its raw maps, which TensorRT runs faster, or as upstream writes it; the "
        "output is the same",
        choices=DECODES,
        advanced=True,
    )
    end2end: str | None = option(
        None,
        "put non-maximum suppression into the graph, with the outputs num_dets, det_boxes, det_scores and det_classes: trt: "
        "the plugin EfficientNMS_TRT, which TensorRT alone runs; onnx: operators of the standard",
        choices=END2END_FORMS,
    )
    topk_all: int = option(
        100,
        "with --end2end: detections of an image at most",
        bounds=Bounds(least=1, most=MOST_DETECTIONS),
        advanced=True,
    )
    iou_thres: float = option(
        0.65, "with --end2end: IoU threshold of the suppression", bounds=Bounds(least=0, most=1), advanced=True
    )
    conf_thres: float = option(
        0.35, "with --end2end: minimum detection score", bounds=Bounds(least=0, most=1), advanced=True
    )
    simplify: bool = option(False, "run onnxsim over the graph; Q/DQ stay", advanced=True)
    fp16_remainder: bool = option(
        False, "FP16 for what is not quantized, for strongly typed TensorRT (11; 10 with --stronglyTyped)"
    )
    fp32_remainder: bool = option(False, "leave in FP32 what is not quantized, also with --target-tensorrt 11.x")
    target_tensorrt: str | None = option(
        None,
        "version that will build the engine, e.g. 8.6, 10.3 or 11: decides how SiLU is spelled, whether "
        "--fp16-remainder is on (11), and which opsets are refused; default: as for 8.6",
        metavar="VERSION",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) > 2:
            raise UserError(f"--size takes N or H W, got {len(self.size)} numbers")
        if self.fp16_remainder and self.fp32_remainder:
            raise UserError("--fp16-remainder and --fp32-remainder contradict each other: give one of them")
        if self.end2end is None:
            refuse_unused(changed(self, ("topk_all", "iou_thres", "conf_thres")), "--end2end trt or onnx")
        lowest = LOWEST_OPSET[self.exporter]
        if self.opset is not None and self.opset < lowest:
            raise UserError(f"--opset {self.opset} cannot hold per-channel Q/DQ: use {lowest} or newer")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.size[0], self.size[-1]
