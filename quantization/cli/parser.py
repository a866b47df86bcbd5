"""Command line shared by scripts/qat-yolov5.py and scripts/qat-yolov7.py: arguments, and a table of commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, Sequence

from quantization import __version__
from quantization.calibration import group_ranges as group_scale
from quantization.calibration import histograms as calib
from quantization.errors import log_to_stdout, run_main
from quantization.placement import policy as placement
from quantization.qat import losses
from quantization.qat import trainer as finetune
from quantization.quantizers import backend as quantizer
from quantization.upstream.checkout import UPSTREAMS, enter_checkout

PROGRAM = "PTQ and QAT of {name} for TensorRT INT8. Run it from a {name} checkout."


def build_parser(name: str) -> argparse.ArgumentParser:
    """The parser for one upstream.

    Args:
        name: "yolov5" or "yolov7".
    """
    parser = argparse.ArgumentParser(prog=f"qat-{name}.py", description=PROGRAM.format(name=name))
    parser.add_argument("--version", action="version", version=f"quant-tools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    _add_quantize(commands, name)
    _add_export(commands)
    _add_sensitive(commands, name)
    _add_test(commands, name)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help_text: str, weight: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=help_text, description=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("weight", metavar="WEIGHT", help=weight)
    return parser


def _add_data(parser: argparse.ArgumentParser, name: str) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--cocodir",
        metavar="DIR",
        default=None,
        help="COCO-layout folder: images/, train2017.txt, val2017.txt, annotations/ or labels/",
    )
    group.add_argument("--data", metavar="YAML", default=None, help="YOLO data.yaml instead of --cocodir")
    group.add_argument("--imgsz", type=int, default=640, help="longer image side, a multiple of the stride")
    group.add_argument("--batch-size", type=positive, default=10, help="images a batch")
    group.add_argument("--workers", type=int, default=4, help="threads that read images")
    group.add_argument(
        "--square",
        action="store_true",
        help="evaluate on squares as a fixed-size engine does; without it on rectangles as upstream does",
    )
    group.add_argument("--confidence", type=float, default=0.001, help="least score of a detection")
    group.add_argument(
        "--nmsthres", type=float, default=UPSTREAMS[name].iou, help="IoU threshold of non-maximum suppression"
    )
    _add_device(parser)
    parser.add_argument(
        "--backend",
        choices=quantizer.BACKENDS,
        default=None,
        help=f"quantizer backend (environment: {quantizer.ENVIRONMENT}); auto takes "
        "pytorch-quantization where it is installed",
    )
    parser.add_argument("--seed", type=int, default=0, help="of image sampling and training order")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=None, help="cpu, cuda:0 ...; default: the first GPU, or the CPU")


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("quantization")
    group.add_argument(
        "--ignore-policy",
        nargs="+",
        metavar="REGEX",
        default=[],
        help="more modules to leave in float: regular expressions for whole module paths, "
        r"e.g. 'model\.2\..*'",
    )
    group.add_argument(
        "--head",
        choices=placement.HEAD_CHOICES,
        default="auto",
        help="the detect head's convolutions: float; input: they compute in float on INT8 inputs, so that "
        "the layers before them emit INT8 (faster, less accurate); int8; shared: input for tensors that "
        "other layers read in INT8 anyway, float for the others; auto: input for the largest of "
        "those tensors alone",
    )
    group.add_argument(
        "--stem",
        choices=placement.STEM_CHOICES,
        default="auto",
        help="the convolution that reads the image; auto: float if it has a stride, where INT8 is slower",
    )
    group.add_argument(
        "--no-rules",
        action="store_true",
        help="quantize convolutions and linear layers only, each with a scale of its own (slower "
        "engines; for comparison)",
    )
    group.add_argument(
        "--exporter",
        choices=("torchscript", "dynamo"),
        default="torchscript",
        help="ONNX exporter that shows the graph to the rules",
    )
    group.add_argument(
        "--calib-method",
        choices=calib.METHODS,
        default="sqnr",
        help="activation ranges with the least error in the detections (sqnr), with the least error in "
        "the activations themselves (mse: the published way), or by entropy, percentile or maximum",
    )
    group.add_argument(
        "--group-scale",
        choices=group_scale.CHOICES,
        default="error",
        help="how tensors that share a scale agree on it: least error of all together, one joint "
        "histogram, or the largest amax",
    )
    group.add_argument(
        "--no-equalize",
        action="store_true",
        help="leave the weights as they are; else the channels behind ReLU and LeakyReLU are brought to "
        "like ranges, which changes nothing of what the float network computes",
    )
    group.add_argument("--calib-batches", type=positive, default=25, help="batches of training images to calibrate on")


def _add_quantize(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = _command(commands, "quantize", "PTQ, and QAT when --qat is given", "float .pt from train.py")
    parser.add_argument("--ptq", metavar="FILE", default="ptq.pt", help="PTQ checkpoint to write")
    parser.add_argument("--qat", metavar="FILE", default=None, help="QAT checkpoint to write; asks for QAT")
    parser.add_argument("--summary", metavar="FILE", default="summary.json", help="figures, options, versions, groups")
    parser.add_argument("--eval-origin", action="store_true", help="measure the float model's mAP")
    parser.add_argument("--eval-ptq", action="store_true", help="measure the PTQ model's mAP")
    parser.add_argument(
        "--max-drop",
        type=not_negative,
        metavar="POINTS",
        default=None,
        help="leave the fewest layers in float that keep mAP@0.5:0.95 within so many points (of 100) of "
        "the float model's; measures both",
    )
    _add_quantization(parser)
    group = parser.add_argument_group("QAT")
    group.add_argument("--epochs", type=positive, default=10, help="epochs; the best by mAP is kept")
    group.add_argument("--iters", type=positive, default=200, help="steps an epoch")
    group.add_argument("--lr", type=float, default=1e-4, help="highest learning rate; the published one is 1e-5")
    group.add_argument(
        "--schedule",
        choices=finetune.SCHEDULES,
        default="cosine",
        help="of the learning rate; steps: the published one; cosine: warm-up, then a cosine",
    )
    group.add_argument(
        "--loss",
        choices=losses.LOSSES,
        default="normalised",
        help="of each layer's output against the float model's; mse: the published one; normalised: over "
        "the energy of the float model's output, so that layers count alike",
    )
    group.add_argument(
        "--head-weight",
        type=not_negative,
        default=0.0,
        metavar="W",
        help="weight of the detect head's raw outputs in the loss; 0: layers before the head alone",
    )
    group.add_argument(
        "--task-weight",
        type=not_negative,
        default=None,
        metavar="W",
        help="weight of upstream's own training loss, on the labels of the training images; default: 1 "
        "where there are labels and a head that it fits, else 0",
    )
    group.add_argument("--supervision-stride", type=positive, default=1, help="supervise every n-th layer")
    group.add_argument("--learn-scales", action="store_true", help="learn the scales too (LSQ)")
    group.add_argument(
        "--ema",
        type=share,
        default=0.0,
        metavar="DECAY",
        help="evaluate and save a moving average of the weights with this decay, e.g. 0.99; 0: none",
    )
    group.add_argument("--amp", choices=sorted(finetune.AMP_TYPES), default="fp16", help="mixed precision on a GPU")
    _add_data(parser, name)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "export", "checkpoint to Q/DQ ONNX", "quantized (or float) .pt")
    parser.add_argument("--save", metavar="FILE", default=None, help="ONNX to write; default: WEIGHT with .onnx")
    parser.add_argument(
        "--size", type=positive, nargs="+", default=[640], metavar="N", help="input size: N for a square, or H W"
    )
    parser.add_argument("--batch", type=positive, default=1, help="batch size")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch size open")
    parser.add_argument("--opset", type=int, default=None, help="13 or newer (dynamo: 18); default: the least")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript", help="torch's exporter")
    parser.add_argument("--simplify", action="store_true", help="run onnxsim over the graph; Q/DQ stay")
    parser.add_argument(
        "--fp16-remainder",
        action="store_true",
        help="FP16 for what is not quantized, for strongly typed TensorRT (11; 10 with --stronglyTyped)",
    )
    _add_device(parser)


def _add_sensitive(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = _command(commands, "sensitive", "which layers cost the most accuracy", "float or quantized .pt")
    parser.add_argument(
        "--summary",
        metavar="FILE",
        default="sensitive-summary.json",
        help="ranking to write; a plot goes beside it as .png",
    )
    parser.add_argument(
        "--metric",
        choices=("map", "sqnr"),
        default="map",
        help="map: mAP with each layer in float in turn; sqnr: error in the detections of each unit "
        "that can be left in float, from one pass over training images",
    )
    parser.add_argument(
        "--num-image",
        type=positive,
        default=None,
        help="look at so many images only; default: map all of validation, sqnr 64 of training",
    )
    _add_quantization(parser)
    _add_data(parser, name)


def _add_test(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = _command(commands, "test", "COCO mAP by pycocotools", "float or quantized .pt, or an .onnx")
    parser.add_argument("--save-json", metavar="FILE", default=None, help="write the figures to this file")
    _add_data(parser, name)


def not_negative(text: str) -> float:
    """argparse type: a number that is not below zero."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not zero or above")
    return value


def share(text: str) -> float:
    """argparse type: a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def positive(text: str) -> int:
    """argparse type: a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """Parse and carry out.

    Args:
        name: "yolov5" or "yolov7".
        arguments: None: the command line.

    Returns:
        The exit code.
    """
    options = build_parser(name).parse_args(arguments)
    log_to_stdout()
    enter_checkout(name, Path(__file__).resolve().parents[2])
    from quantization.cli import commands

    table: dict[str, Callable[..., None]] = {
        "quantize": commands.quantize,
        "export": commands.export,
        "sensitive": commands.sensitive,
        "test": commands.test,
    }
    table[options.command](name, options)
    return 0


def main(name: str) -> None:
    """Entry point of the scripts."""
    run_main(lambda arguments: run(name, arguments))
