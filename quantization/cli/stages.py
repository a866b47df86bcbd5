"""What commands are made of: a quantize run on its own files, and an export with its preflight."""

from __future__ import annotations

import logging
from typing import Any, Callable

from torch import nn

from quantization.cli.handing_over import check_hand_over, hand_over
from quantization.cli.options import EVALUATION, ExportCommand, QuantizeCommand
from quantization.cli.quantization import Quantization
from quantization.cli.resume import is_done, own_files
from quantization.data.tensors import pick_device
from quantization.distributed import RANKS
from quantization.evaluation.comparison import NamedImages, named_images
from quantization.export.export import export_onnx
from quantization.export.graph import check_exporter
from quantization.export.requirements import check_exportable
from quantization.export.target import for_target, target_warnings
from quantization.files import check_named_files
from quantization.option_fields import changed
from quantization.placement.policy import Placement, placement_of
from quantization.preflight.report import Report, preflight, report_text
from quantization.quantizers.switches import have_quantizers
from quantization.upstream import checkpoint
from quantization.upstream.network import check_size
from quantization.upstream.record import read_record
from quantization.upstream.trained_size import warn_of_other_size

LOG = logging.getLogger("quantization")


def nothing_more(model: nn.Module | None) -> None:
    """Stands for what a command does not do."""


def run_quantize(
    name: str, options: QuantizeCommand, hint: str = "", checked: Callable[[nn.Module | None], None] = nothing_more
) -> None:
    """PTQ, and QAT when the options ask for it; nothing where ``--resume`` finds the run finished.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command quantize.
        hint: end of the message of an interrupted run; empty: how to resume quantize.
        checked: called once all input is found good, before any work, with the float model; with None if no work is left.
    """
    check_exporter(options.placement.exporter)
    unused = [] if options.measures else changed(options.images, EVALUATION)
    if unused and RANKS.main:
        LOG.warning("WARNING: %s without effect: nothing is evaluated (--eval-origin, --eval-ptq)", ", ".join(unused))
    with own_files(options):
        if RANKS.main_only(lambda: is_done(options)):
            checked(None)
            return
        quantization = Quantization(name, options, hint)
        if RANKS.main:
            warn_of_other_size(quantization.model, options.weight, options.images.imgsz, "--imgsz")
        checked(quantization.model)
        quantization.run()


def run_export(name: str, options: ExportCommand, file: str, source: NamedImages | None = None) -> Report | None:
    """Write the ONNX and check it.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command export.
        file: the ONNX.
        source: images to compare ONNX Runtime with torch on, where the options name none.

    Returns:
        The preflight's report; None for a float checkpoint.
    """
    check_named_files([options.weight], [("--save", file)])
    if options.compare_images is not None:
        source = named_images(options.compare_images)
    model, content = export_input(name, options)
    written = read_record(content, options.weight)
    quantized = have_quantizers(model)
    if not quantized:
        LOG.info("%s is a float checkpoint: the ONNX has no Q/DQ", options.weight)
    check_hand_over(model, options)
    exported = export_onnx(model, file, options.graph, source, upstream=name)
    hand_over(name, model, exported.graph, options)
    if not quantized:
        return None
    stored = None if written is None else written.placement
    placement = placement_of(model) if stored is None else Placement(**stored)
    report = preflight(exported.graph, set(placement.unquantized).__contains__)
    LOG.info("%s", report_text(report))
    return report


def export_input(name: str, options: ExportCommand) -> tuple[nn.Module, dict[str, Any]]:
    """The model to export and what was saved with it, once the options are found to fit.

    Raises:
        UserError: they do not fit each other or the model, or it cannot be loaded.
    """
    for_target(options.graph)  # before the checkpoint, which takes longer
    for warning in target_warnings(options.graph):
        LOG.warning("WARNING: %s", warning)
    model, content = checkpoint.load(options.weight, pick_device(options.run.device), name, options.run.trust_weights)
    for side in options.graph.size:
        check_size(side, model, "--size")
    check_exportable(model, options.graph)
    return model, content
