"""Every network of an upstream through the whole bundle: quantize, find groups, calibrate, export, compare with torch.

    python benchmarks/architectures.py --upstream yolov5 --checkout path/to/yolov5 --json yolov5.json

Weights, BatchNorm statistics and images are random: the structure is what counts. The comparison of ONNX Runtime with
torch is relative to the largest output; a value on the edge between two levels may round either way.
Separate Q kernels, type-changing Reformats and the share of MACs in INT8 are predicted by quantization.preflight.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import io
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import bundle  # noqa: F401  # puts quantization on the import path
from random_net import random_net

from quantization import quantize
from quantization.calibration.calibrate import calibrate_model
from quantization.export.export import export_onnx
from quantization.export.graph import export_graph
from quantization.options import ExportOptions
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import Placement, choose_placement
from quantization.preflight.report import load_onnx, preflight
from quantization.quantizers.backend import WEIGHT_NAME, is_enabled, named_quantizers
from quantization.quantizers.modules import QuantConv2d, QuantLinear
from quantization.upstream import model as upstream

CONFIGURATIONS = {
    "yolov5": ("models/*.yaml", "models/hub/yolo*.yaml", "models/segment/*.yaml"),
    "yolov7": ("cfg/training/*.yaml", "cfg/deploy/*.yaml", "cfg/baseline/*.yaml"),
}
CLASSES = 7  # a number that no configuration names, as in users' data sets
COLUMNS = {  # key of a row to the column's title
    "net": "network",
    "convs": "convs",
    "float_convs": "float convs",
    "quantizers": "quantizers",
    "shared": "shared",
    "groups": "groups",
    "unused": "unused",
    "float_readers": "also float",
    "group_seconds": "groups s",
    "int8_share": "INT8 MACs",
    "separate_q": "Q image+known+avoidable",
    "type_changing": "type-changing",
    "failures": "failures",
    "seconds": "all s",
    "difference": "ORT max",
    "mean_difference": "ORT mean",
}


class Messages(logging.Handler):
    """Keeps the messages of the bundle's log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.lines.append(record.getMessage())


def measure(cfg: str, classes: int = CLASSES, with_rules: bool = True, exporter: str = "torchscript") -> dict[str, Any]:
    """One row of the table; see ``COLUMNS``. Runs in the checkout."""
    import torch

    start = time.perf_counter()
    messages = Messages()
    log = logging.getLogger("quantization")
    log.addHandler(messages)
    log.setLevel(logging.INFO)
    model = upstream.fuse(random_net(cfg, classes))
    size = 2 * int(model.stride.max())
    quantize.initialize("native")
    placement = choose_placement(model)
    replace_to_quantization_module(model, placement)
    row: dict[str, Any] = {"net": cfg, **layer_counts(model)}
    if with_rules:
        row.update(share_scales(model, size, exporter))
    quantizers = [quantizer for _, name, _, quantizer in named_quantizers(model) if name != WEIGHT_NAME]
    row["unused"] = sum(not is_enabled(quantizer) for quantizer in quantizers)
    calibrate_model(model, [torch.rand(2, 3, size, size)], "max")
    row.update(exported(model, placement, size, exporter), seconds=round(time.perf_counter() - start, 1))
    row["notes"] = [line for line in messages.lines if "also feeds" in line or "left float" in line]
    row["float_readers"] = sum("also feeds" in line for line in row["notes"])
    return row


def layer_counts(model: Any) -> dict[str, Any]:
    """How many layers of a kind a quantized network has, and which convolutions stayed float."""
    from torch import nn

    head = upstream.head_path(model) + "."
    convs = {path: module for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    float_convs = [path for path, module in convs.items() if not isinstance(module, QuantConv2d)]
    return {
        "convs": len(convs) - len(float_convs),
        "float_convs": len(float_convs),
        "float_convs_outside_head": [path for path in float_convs if not path.startswith(head)],
        "linears": sum(isinstance(module, QuantLinear) for module in model.modules()),
        "quantizers": sum(name != WEIGHT_NAME for _, name, _, _ in named_quantizers(model)),
    }


def share_scales(model: Any, size: int, exporter: str) -> dict[str, Any]:
    """Give scale groups one quantizer; their figures, the time without writing the ONNX."""
    exporting = []

    def write(part: Any) -> Any:
        begin = time.perf_counter()
        graph = export_graph(part, ExportOptions((size,), exporter=exporter))
        exporting.append(time.perf_counter() - begin)
        return graph

    begin = time.perf_counter()
    groups = quantize.apply_custom_rules_to_quantizer(model, write)
    seconds = time.perf_counter() - begin - sum(exporting)
    shared = [list(group.names) for group in groups if len(group.members) > 1]
    return {
        "group_seconds": round(seconds, 3),
        "groups": len(groups),
        "shared": sum(map(len, shared)),
        "shared_groups": shared,
    }


def exported(model: Any, placement: Placement, size: int, exporter: str) -> dict[str, Any]:
    """Export a calibrated network: its difference from torch, and what the preflight predicts."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "net.onnx")
        difference = export_onnx(model, file, ExportOptions((size,), exporter=exporter)).difference
        report = preflight(load_onnx(file), set(placement.unquantized).__contains__)
    return {
        "difference": difference.largest / difference.scale,
        "mean_difference": difference.mean / difference.scale,
        "int8_share": round(report.int8_macs / report.macs, 4) if report.macs else None,
        "separate_q": "+".join(str(report.separate_q[kind]) for kind in ("image", "known", "avoidable")),
        "type_changing": report.type_changing,
        "requantize": report.requantize,
        "failures": sum(item.severity == "fail" for item in report.findings),
        "findings": [[item.severity, item.check, item.what] for item in report.findings],
    }


def measure_quietly(arguments: dict[str, Any]) -> dict[str, Any]:
    """``measure`` without upstream's own output; a failure becomes a row with the error."""
    logging.getLogger("yolov5").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        try:
            return measure(**arguments)
        except Exception as error:  # the sweep continues; main reports it and exits with 1
            return {
                "net": arguments["cfg"],
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }


def print_row(row: dict[str, Any]) -> None:
    """Print a row of the Markdown table."""
    if "error" in row:
        print(f"| {row['net']} | FAILED: {row['error']} |", flush=True)
        return
    cells = [row.get(key, "-") for key in COLUMNS]
    print(
        "| "
        + " | ".join(f"{cell:.1e}" if key.endswith("difference") else str(cell) for key, cell in zip(COLUMNS, cells))
        + " |",
        flush=True,
    )


def main() -> int:
    """Measure every network that the command line selects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=sorted(CONFIGURATIONS), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--nets", default="*", help="pattern of configuration files, as '*yolov7-tiny*'")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--no-rules", action="store_true", help="every quantizer keeps its own scale")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    parser.add_argument("--json", type=Path, help="write the rows here, with the groups and what stayed float")
    options = parser.parse_args()

    output = options.json.resolve() if options.json else None
    os.chdir(options.checkout)
    from quantization.upstream.checkout import enter_checkout

    enter_checkout(options.upstream, Path.cwd())
    import models.yolo  # noqa: F401  # once, before the processes fork

    nets = [
        str(path)
        for pattern in CONFIGURATIONS[options.upstream]
        for path in sorted(Path().glob(pattern))
        if fnmatch.fnmatch(str(path), options.nets)
    ]
    tasks = [
        {"cfg": net, "classes": options.classes, "with_rules": not options.no_rules, "exporter": options.exporter}
        for net in nets
    ]
    print("| " + " | ".join(COLUMNS.values()) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    rows = []
    # one process per network: yolov5's `activation:` changes a class, and memory is returned
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for row in pool.imap(measure_quietly, tasks):
            print_row(row)
            rows.append(row)
            if output:
                output.write_text(json.dumps(rows, indent=1))
    return int(any("error" in row for row in rows) or not rows)


if __name__ == "__main__":
    sys.exit(main())
