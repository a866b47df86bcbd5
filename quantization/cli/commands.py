"""The commands of the qat scripts. Each checks all of its input before it does any work."""

from __future__ import annotations

import logging
from typing import Any, Callable

from quantization.cli.closings import (
    after_export,
    after_quantize,
    after_sensitive,
    after_test,
    after_variants,
    export_target,
)
from quantization.cli.deploy import deploy_command, resumed_deploy
from quantization.cli.options import EvaluationCommand, ExportCommand, QuantizeCommand, SensitiveCommand
from quantization.cli.preparation import calibrate, prepare, sample_tensors, versions
from quantization.cli.resume import resumed_options
from quantization.cli.stages import run_export, run_quantize
from quantization.cli.variants import VariantExport
from quantization.closing import tell
from quantization.data.dataset import open_dataset
from quantization.data.sample import SQNR_IMAGES
from quantization.data.tensors import pick_device
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.evaluation.class_table import class_text
from quantization.evaluation.detecting import Predictor
from quantization.evaluation.network import fit_dataset, make_evaluator
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.evaluation.saved_samples import compare_with, read_samples, write_samples
from quantization.export.graph import check_exporter
from quantization.files import check_named_files, write_json
from quantization.option_fields import Options, changed, record, refuse_unused
from quantization.placement.policy import choose_placement
from quantization.qat.run import picture_file
from quantization.quantizers.switches import have_quantizers, uncalibrated
from quantization.sensitivity.plot import draw_ranking
from quantization.sensitivity.ranking import rank_by_map, rank_by_sqnr
from quantization.upstream import checkpoint
from quantization.upstream.ap import upstream_ap
from quantization.upstream.network import onnx_network, torch_network
from quantization.upstream.predictor import torch_predictor

LOG = logging.getLogger("quantization")


def quantize_command(name: str, options: QuantizeCommand) -> int:
    """PTQ, and QAT when ``--qat`` is given."""
    run_quantize(name, options)
    if RANKS.main:
        tell(after_quantize(name, options))
    return 0


def export_command(name: str, options: ExportCommand) -> int:
    """Checkpoint to Q/DQ ONNX, or to those of ``--variants``."""
    if options.variants is not None:
        export = VariantExport(name, options)
        written = export.run()
        tell(after_variants(options.variants, written, export.failed))
        return int(bool(export.failed))
    report = run_export(name, options, export_target(options))
    tell(after_export(options, report))
    return int(report is not None and report.failed)


def sensitive_command(name: str, options: SensitiveCommand) -> int:
    """Rank layers by the mAP with each in float in turn, or units by their error in the detections."""
    picture = picture_file(options.summary)
    check_named_files([options.weight], [("--summary", options.summary), ("--summary", picture)])
    check_exporter(options.placement.exporter)
    named = open_dataset(options.images.cocodir, options.images.data)
    device = pick_device(options.run.device)
    model, _ = checkpoint.load(options.weight, device, name, options.run.trust_weights)
    quantized = have_quantizers(model)
    if quantized:
        unused = changed(options.placement, ("head", "stem", "activation_pairs", "rules", "exporter"))
        refuse_unused([*unused, *changed(options.calibration)], f"a float checkpoint ({options.weight} is quantized)")
    network = torch_network(name, model, options.weight, options.images)
    checked = fit_dataset(named, network, train=True, val=options.metric == "map")
    dataset = checked.dataset
    evaluator = None
    if options.metric == "map":
        part = dataset.with_val(dataset.val[: options.num_image])
        evaluator = make_evaluator(options.images, network, part, checked.truth if part == dataset else None)
    if quantized:
        LOG.info("%s is quantized already and is analysed as it is", options.weight)
    else:
        placement = choose_placement(model, options.placement)
        prepare(model, dataset, options.images, options.calibration)
        calibrate(model, dataset, placement, options)
    if evaluator is not None:
        measure = evaluator
        predict = torch_predictor(model)
        rank_by_map(
            model, lambda: measure(predict, "layer", quiet=True), options.placement.ignore_policy, options.summary
        )
    else:
        images = sample_tensors(dataset, options.images, device, options.num_image or SQNR_IMAGES)
        rank_by_sqnr(model, images, options.images.seed, options.placement.ignore_policy, options.summary)
    draw_ranking(options.summary, picture)
    tell(after_sensitive(name, options, quantized))
    return 0


def test_command(name: str, options: EvaluationCommand) -> int:
    """COCO mAP of a checkpoint or an ONNX."""
    made = [("--save-json", options.save_json), ("--save-samples", options.save_samples)]
    check_named_files([options.weight, options.against], made)
    against = None if options.against is None else read_samples(options.against)
    named = open_dataset(options.images.cocodir, options.images.data)
    predict: Predictor
    if options.weight.endswith(".onnx"):
        predict = runtime = OnnxPredictor(options.weight, options.output_format)
        network, label = onnx_network(name, runtime, options.weight, options.images, options.imgsz), "ONNX Runtime"
    else:
        model, _ = checkpoint.load(options.weight, pick_device(options.run.device), name, options.run.trust_weights)
        network = torch_network(name, model, options.weight, options.checkpoint_images())
        missing = uncalibrated(model)
        if missing:
            raise UserError(f"{options.weight} was never calibrated ({missing[0]} has no scale): run quantize first")
        predict, label = torch_predictor(model), "quantized" if have_quantizers(model) else "float"
    checked = fit_dataset(named, network)
    evaluator = make_evaluator(options.images, network, checked.dataset, checked.truth)
    if against is not None:
        compare_with(against, evaluator)
    metrics, found = evaluator.measure(predict, f"{options.weight} ({label})")
    content = {**metrics.content(), "options": record(options), "versions": versions()}
    if options.upstream_ap:
        content["upstream_map"], content["upstream_map50"] = upstream_ap(name, found, evaluator.truth.arrays())
        LOG.info(
            "upstream's own AP of the same detections: mAP@0.5:0.95 %.4f, mAP@0.5 %.4f",
            content["upstream_map"],
            content["upstream_map50"],
        )
    LOG.info("%s", class_text(metrics.content()))
    if options.save_json is not None:
        write_json(options.save_json, content)
    if options.save_samples is not None:
        write_samples(options.save_samples, metrics, options.weight, evaluator)
    tell(after_test(options, content))
    return 0


TABLE: dict[str, Callable[..., int]] = {
    "deploy": deploy_command,
    "quantize": quantize_command,
    "export": export_command,
    "sensitive": sensitive_command,
    "test": test_command,
}

RESUMED: dict[str, Callable[[dict[str, Any]], Options]] = {"deploy": resumed_deploy, "quantize": resumed_options}
