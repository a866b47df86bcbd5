"""The command of scripts/quantize-onnx.py: a float ONNX to a Q/DQ one. No torch."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import onnx
import onnxruntime

from quantization import __version__
from quantization.cli.parser import LineParser, add_options
from quantization.closing import Closing, command_line, tell
from quantization.errors import NotWritten, UserError, log_to_stdout
from quantization.files import atomic_write, check_named_files, write_json
from quantization.onnx_graph.fp16 import MIN_OPSET as FP16_OPSET
from quantization.onnx_quantize.comparison import compared_tensors, tensor_ratios
from quantization.onnx_quantize.float_model import FloatModel
from quantization.onnx_quantize.images import calibration_batches
from quantization.onnx_quantize.options import OnnxCalibrationOptions, OnnxGraphOptions, OnnxImageOptions
from quantization.onnx_quantize.quantize import calibrate_onnx, plan_onnx, write_pairs
from quantization.option_fields import Options, argument, group, make, option, record
from quantization.options import LayerOptions
from quantization.preflight.report import Report, preflight, report_text

LOG = logging.getLogger("quantization")
COMPARED = 4  # images
PROGRAM = "quantize-onnx.py"
SUFFIX = ".onnx"


@dataclass(frozen=True)
class OnnxCommand(Options):
    """PTQ of a float ONNX of any detector: Q/DQ for TensorRT INT8, without a checkout and without torch."""

    model: str = argument("float ONNX, FP32 or FP16", metavar="MODEL.onnx")
    save: str | None = option(None, "Q/DQ ONNX to write; default: MODEL-int8.onnx", metavar="FILE")
    summary: str | None = option(None, "JSON to write: groups, ranges, layers left float, versions", metavar="FILE")
    placement: LayerOptions = group(LayerOptions, "placement")
    calibration: OnnxCalibrationOptions = group(OnnxCalibrationOptions, "calibration")
    images: OnnxImageOptions = group(OnnxImageOptions, "images")
    graph: OnnxGraphOptions = group(OnnxGraphOptions, "ONNX")

    @property
    def output(self) -> str:
        """The file to write."""
        return self.save or self.model[: -len(SUFFIX) if self.model.endswith(SUFFIX) else None] + f"-int8{SUFFIX}"


def onnx_parser() -> LineParser:
    """The command line of quantize-onnx.py."""
    parser = LineParser(prog=PROGRAM, description=OnnxCommand.__doc__)
    parser.add_argument("--version", action="version", version=f"quant-tools {__version__}")
    add_options(parser, OnnxCommand)
    return parser


def run_onnx_command(arguments: Sequence[str] | None = None) -> int:
    """Parse and carry out; the exit code: 1 where a check of the preflight failed."""
    options = make(OnnxCommand, vars(onnx_parser().parse_args(arguments)))
    log_to_stdout()
    return quantize_onnx(options)


def quantize_onnx(options: OnnxCommand) -> int:
    """Quantize, check, compare, write; the exit code.

    Raises:
        UserError: something in the input has to change; nothing is written then.
    """
    check_named_files(
        [options.model, options.images.images], [("--save", options.output), ("--summary", options.summary)]
    )
    source = FloatModel(options.model, FP16_OPSET if options.graph.fp16_remainder else None)
    shape = source.image_shape(options.images.imgsz)
    count = options.calibration.batches * options.images.batch_size
    batches, total = calibration_batches(options.images, shape, count)
    planned = plan_onnx(source, shape, options.placement)
    iterator = iter(batches)
    first = list(islice(iterator, 1))
    found = calibrate_onnx(source, planned, chain(first, iterator), total, options.calibration)
    LOG.info("Calibrated on %d images of %d x %d by %s", total, *shape[1:], found.method)
    result = write_pairs(source, found, options.graph)
    models = (source.source, result)
    ratios = tensor_ratios(models, source, first[0][:COMPARED], compared_tensors(models, found.graph))
    report = preflight(result)
    with atomic_write(options.output) as temporary:
        onnx.save(result, temporary)
    LOG.info("%s: ONNX Runtime, quantized against float: %s", options.output, ratio_text(ratios))
    LOG.info("%s", report_text(report))
    if options.summary is not None:
        content = {"options": record(options), "versions": versions_of_onnx(), **found.content()}
        _write_summary(
            options.summary,
            {
                **content,
                "sqnr_db": {name: ratio if isfinite(ratio) else None for name, ratio in ratios.items()},
                "preflight": report.to_dict(),
            },
        )
    tell(closing(options, report))
    return int(report.failed)


def closing(options: OnnxCommand, report: Report) -> Closing:
    """The files, and the engine to build."""
    written = {options.output: "Q/DQ ONNX"}
    if options.summary is not None:
        written[options.summary] = "groups, ranges, layers left float, versions"
    if report.failed:
        return Closing(written=written, following=["change what FAIL names above"])
    bench = command_line("bench-engine.py", options.output, "--modes", "qat", "--save-engine", "plans")
    return Closing(written=written, following=[*accuracy_lines(options), "on the target:", bench])


def accuracy_lines(options: OnnxCommand) -> list[str]:
    """What tells the mAP that quantization costs, where the data set is known: it needs no GPU."""
    images, samples = options.images, str(Path(options.output).with_suffix(".float.npz"))
    if images.data is None:
        return []
    data = ["--data", images.data, *([] if images.imgsz is None else ["--imgsz", images.imgsz])]
    steps = ((options.model, "--save-samples"), (options.output, "--against"))
    lines = [command_line("eval-engine.py", file, *data, flag, samples) for file, flag in steps]
    return ["what it costs in mAP, in ONNX Runtime:", *lines]


def ratio_text(ratios: dict[str, float]) -> str:
    """Signal-to-noise ratios of outputs, in words."""
    return ", ".join(f"{name} {ratio:.1f} dB" for name, ratio in ratios.items())


def versions_of_onnx() -> dict[str, str]:
    """Versions of what a result depends on, where torch may be missing."""
    return {
        "quant-tools": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _write_summary(file: str, content: dict[str, Any]) -> None:
    try:
        write_json(file, content)
    except UserError as error:
        raise NotWritten(f"the ONNX is written, but {error}") from error
