"""Every net of an upstream through the whole bundle: quantize, find groups, calibrate, export, compare with torch.

    python benchmarks/architectures.py --upstream yolov5 --checkout path/to/yolov5 --json yolov5.json

Weights, BatchNorm statistics and images are random: the structure is what counts. The comparison of ONNX Runtime with
torch is told in parts of the largest output; values that lie on the edge between two levels may round either way.
Separate Q kernels, type-changing Reformats and the share of MACs in INT8 are quantization.preflight's.
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
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from random_net import random_net

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.calibration.calibrate import calibrate_model
from quantization.placement.insert import attention_blocks, replace_to_quantization_module

BUNDLE = Path(__file__).resolve().parents[1]
CONFIGURATIONS = {
    "yolov5": ("models/*.yaml", "models/hub/yolo*.yaml", "models/segment/*.yaml"),
    "yolov7": ("cfg/training/*.yaml", "cfg/deploy/*.yaml", "cfg/baseline/*.yaml"),
}
CLASSES = 7  # a number of their own, as users' data sets have; no configuration asks for 3 * (7 + 5) channels
COLUMNS = {  # key of a row to the column's title
    "net": "net",
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
        self.lines.append(record.getMessage())


def measure(cfg: str, classes: int = CLASSES, with_rules: bool = True, exporter: str = "torchscript") -> dict[str, Any]:
    """One row of the table; see ``COLUMNS``. Runs in the checkout."""
    import torch
    from torch import nn

    from quantization import quantize
    from quantization.export import export
    from quantization.placement.policy import choose_placement
    from quantization.preflight.report import preflight
    from quantization.quantizers.backend import WEIGHT_NAME, named_quantizers
    from quantization.quantizers.modules import QuantConv2d, QuantLinear
    from quantization.upstream import model as upstream

    start = time.perf_counter()
    messages = Messages()
    log = logging.getLogger("quantization")
    log.addHandler(messages)
    log.setLevel(logging.INFO)
    model = upstream.fuse(random_net(cfg, classes))
    size = 2 * int(model.stride.max())
    quantize.initialize("native")
    replace_to_quantization_module(model)
    head = upstream.head_path(model) + "."
    convs = {path: module for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    row: dict[str, Any] = {
        "net": cfg,
        "convs": sum(isinstance(module, QuantConv2d) for module in convs.values()),
        "float_convs": sum(not isinstance(module, QuantConv2d) for module in convs.values()),
        "float_convs_outside_head": [
            path for path, module in convs.items() if not isinstance(module, QuantConv2d) and not path.startswith(head)
        ],
        "linears": sum(isinstance(module, QuantLinear) for module in model.modules()),
        "quantizers": sum(name != WEIGHT_NAME for _, name, _, _ in named_quantizers(model)),
    }
    if with_rules:
        exporting = []

        def timed_export(part: Any) -> Any:
            begin = time.perf_counter()
            graph = export.export_graph(part, export.ExportOptions((size, size), exporter=exporter))
            exporting.append(time.perf_counter() - begin)
            return graph

        begin = time.perf_counter()
        groups = quantize.apply_custom_rules_to_quantizer(model, timed_export)
        shared = [list(group.names) for group in groups if len(group.members) > 1]
        row.update(
            group_seconds=round(time.perf_counter() - begin - sum(exporting), 3),
            groups=len(groups),
            shared=sum(map(len, shared)),
            shared_groups=shared,
        )
    row["unused"] = sum(
        bool(quantizer._disabled) for _, name, _, quantizer in named_quantizers(model) if name != WEIGHT_NAME
    )
    calibrate_model(model, [torch.rand(2, 3, size, size)], "max")
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "net.onnx")
        exported = export.export_onnx(model, file, export.ExportOptions((size, size), exporter=exporter))
        blocks = [re.escape(block) for block in attention_blocks(model)]
        placement = choose_placement(model)
        report = preflight(exported.graph, [*placement.float_layers, *placement.float_weights, *blocks])
    row.update(
        difference=exported.difference.largest / exported.difference.scale,
        mean_difference=exported.difference.mean / exported.difference.scale,
        seconds=round(time.perf_counter() - start, 1),
        notes=[line for line in messages.lines if "also feeds" in line or "left float" in line],
    )
    row.update(
        int8_share=round(report.int8_macs / report.macs, 4) if report.macs else None,
        separate_q="+".join(str(report.separate_q[kind]) for kind in ("image", "known", "avoidable")),
        type_changing=report.type_changing,
        requantize=report.requantize,
        failures=sum(item.severity == "fail" for item in report.findings),
        findings=[[item.severity, item.check, item.what] for item in report.findings],
    )
    row["float_readers"] = sum("also feeds" in line for line in row["notes"])
    return row


def measure_quietly(arguments: dict[str, Any]) -> dict[str, Any]:
    """``measure`` without upstream's own output; a failure becomes a row with the error."""
    logging.getLogger("yolov5").setLevel(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        try:
            return measure(**arguments)
        except Exception as error:  # the sweep goes on; main reports it and exits with 1
            return {
                "net": arguments["cfg"],
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }


def print_row(row: dict[str, Any]) -> None:
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=sorted(CONFIGURATIONS), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--nets", default="*", help="pattern of configuration files, as '*yolov7-tiny*'")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--no-rules", action="store_true", help="every quantizer keeps a scale of its own")
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
    # a process for each net: yolov5's `activation:` changes a class, and memory goes back
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for row in pool.imap(measure_quietly, tasks):
            print_row(row)
            rows.append(row)
            if output:
                output.write_text(json.dumps(rows, indent=1))
    return int(any("error" in row for row in rows) or not rows)


if __name__ == "__main__":
    sys.exit(main())
