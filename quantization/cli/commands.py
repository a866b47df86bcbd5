"""The commands of the qat scripts. Each checks all of its input before it does any work."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Callable

from quantization.cli.options import EvaluationCommand, ExportCommand, QuantizeCommand, SensitiveCommand
from quantization.cli.preparation import calibrate, prepare, sample_tensors, versions
from quantization.cli.quantization import Quantization
from quantization.cli.resume import is_done, own_files
from quantization.data.sample import SQNR_IMAGES
from quantization.data.tensors import pick_device
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.evaluation.coco import Predictor
from quantization.evaluation.network import make_evaluator, open_checked
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export.export import export_onnx
from quantization.files import check_writable, refuse_overwriting, write_json
from quantization.option_fields import record
from quantization.placement.policy import Placement, choose_placement, placement_of
from quantization.preflight.report import preflight, report_text
from quantization.qat.run import picture_file
from quantization.quantizers.switches import have_quantizers, uncalibrated
from quantization.sensitivity.plot import draw_ranking
from quantization.sensitivity.ranking import rank_by_map, rank_by_sqnr
from quantization.upstream import checkpoint
from quantization.upstream.ap import upstream_ap
from quantization.upstream.network import check_size, onnx_network, torch_network
from quantization.upstream.predictor import torch_predictor
from quantization.upstream.record import read_record

LOG = logging.getLogger("quantization")


def quantize_command(name: str, options: QuantizeCommand) -> int:
    """PTQ, and QAT when ``--qat`` is given."""
    with own_files(options):
        if not RANKS.main_only(lambda: is_done(options)):
            Quantization(name, options).run()
    return 0


def export_command(name: str, options: ExportCommand) -> int:
    """Checkpoint to Q/DQ ONNX."""
    file = options.save or str(Path(options.weight).with_suffix(".onnx"))
    refuse_overwriting(options.weight, file)
    model, content = checkpoint.load(options.weight, pick_device(options.run.device), name, options.run.trust_weights)
    written = read_record(content, options.weight)
    for side in options.graph.size:
        check_size(side, model, "--size")
    quantized = have_quantizers(model)
    if not quantized:
        LOG.info("%s is a float checkpoint: the ONNX has no Q/DQ", options.weight)
    check_writable(file, "--save")
    exported = export_onnx(model, file, options.graph)
    LOG.info("ONNX: %s", file)
    if not quantized:
        return 0
    stored = None if written is None else written.placement
    placement = placement_of(model) if stored is None else Placement(**stored)
    report = preflight(exported.graph, set(placement.unquantized).__contains__)
    LOG.info("%s", report_text(report))
    return int(report.failed)


def sensitive_command(name: str, options: SensitiveCommand) -> int:
    """Rank layers by the mAP with each in float in turn, or units by their error in the detections."""
    picture = picture_file(options.summary)
    refuse_overwriting(options.weight, options.summary, picture)
    device = pick_device(options.run.device)
    model, _ = checkpoint.load(options.weight, device, name, options.run.trust_weights)
    network = torch_network(name, model, options.weight, options.images)
    dataset = open_checked(options.images, network, train=True, val=options.metric == "map").dataset
    check_writable(options.summary, "--summary")
    evaluator = None
    if options.metric == "map":
        part = dataset.with_val(dataset.val[: options.num_image])
        evaluator = make_evaluator(options.images, network, part)
    if have_quantizers(model):
        LOG.info("%s is quantized already and is analysed as it is", options.weight)
    else:
        placement = choose_placement(model, options.placement)
        prepare(model, dataset, options.images, options.calibration)
        calibrate(model, dataset, placement, options)
    if evaluator is not None:
        measure = evaluator
        predict = torch_predictor(model)
        rank_by_map(model, lambda: measure(predict, "layer", quiet=True), options.summary)
    else:
        images = sample_tensors(dataset, options.images, device, options.num_image or SQNR_IMAGES)
        rank_by_sqnr(model, images, options.images.seed, options.placement.ignore_policy, options.summary)
    draw_ranking(options.summary, picture)
    LOG.info("Summary: %s, plot: %s", options.summary, picture)
    return 0


def test_command(name: str, options: EvaluationCommand) -> int:
    """COCO mAP of a checkpoint or an ONNX."""
    if options.save_json is not None:
        refuse_overwriting(options.weight, options.save_json)
        check_writable(options.save_json, "--save-json")
    predict: Predictor
    if options.weight.endswith(".onnx"):
        predict = runtime = OnnxPredictor(options.weight, options.output_format)
        network, label = onnx_network(name, runtime, options.weight, options.images), "ONNX Runtime"
    else:
        model, _ = checkpoint.load(options.weight, pick_device(options.run.device), name, options.run.trust_weights)
        network = torch_network(name, model, options.weight, options.images)
        missing = uncalibrated(model)
        if missing:
            raise UserError(f"{options.weight} was never calibrated ({missing[0]} has no scale): run quantize first")
        predict, label = torch_predictor(model), "quantized" if have_quantizers(model) else "float"
    dataset = open_checked(options.images, network).dataset
    evaluator = make_evaluator(options.images, network, dataset)
    metrics, found = evaluator.measure(predict, f"{options.weight} ({label})")
    content = {**asdict(metrics), "options": record(options), "versions": versions()}
    if options.upstream_ap:
        content["upstream_map"], content["upstream_map50"] = upstream_ap(name, found, evaluator.truth.arrays())
        LOG.info(
            "upstream's own AP of the same detections: mAP@0.5:0.95 %.4f, mAP@0.5 %.4f",
            content["upstream_map"],
            content["upstream_map50"],
        )
    for class_name, value in metrics.per_class.items():
        LOG.info("  %-20s %.4f", class_name, value)
    if options.save_json is not None:
        write_json(options.save_json, content)
    return 0


TABLE: dict[str, Callable[..., int]] = {
    "quantize": quantize_command,
    "export": export_command,
    "sensitive": sensitive_command,
    "test": test_command,
}
