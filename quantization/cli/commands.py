"""The commands of the qat scripts: quantize, export, sensitive, test."""

from __future__ import annotations

import argparse
import copy
import logging
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quantization import __version__
from quantization import quantize as passes
from quantization.data.images import Dataset, Loader, open_dataset
from quantization.data.tensors import SQNR_IMAGES, LabelledImages, TensorLoader, training_sample
from quantization.errors import UserError
from quantization.evaluation.coco import Evaluator, Metrics, Predictor
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export import export as onnx_export
from quantization.files import check_writable, refuse_overwriting, write_json
from quantization.placement import scale_groups as rules
from quantization.placement.insert import attention_blocks
from quantization.placement.policy import recorded_placement
from quantization.preflight.report import preflight, report_text
from quantization.qat.run import picture_file, task_loss, train
from quantization.quantize import equalize_channels, insert_and_calibrate
from quantization.quantizers.switches import amax_table, have_quantizers, uncalibrated
from quantization.sensitivity import budget
from quantization.sensitivity import ranking as sensitivity_analysis
from quantization.sensitivity.first_order import sensitivity_by_sqnr
from quantization.sensitivity.plot import plot
from quantization.upstream import checkpoint
from quantization.upstream import model as upstream
from quantization.upstream.predictor import torch_predictor

LOG = logging.getLogger("quantization")


# --- parts that the commands share ------------------------------------------------------------------------------------


def pick_device(name: str | None) -> torch.device:
    """The device of ``--device``.

    Raises:
        UserError: torch does not know it, or has no such GPU.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is unknown: give cpu or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu, or install a torch built for your CUDA"
        )
    return device


def check_size(size: int, model: nn.Module, flag: str) -> None:
    """Raises a UserError if ``size`` is no multiple of the model's stride."""
    stride = int(model.stride.max())
    if size % stride or size <= 0:
        raise UserError(
            f"{flag} {size} is no multiple of the model's stride {stride}: "
            f"use {max(stride, round(size / stride) * stride)}"
        )


def make_evaluator(
    name: str, options: argparse.Namespace, dataset: Dataset, classes: int, stride: int | None
) -> Evaluator:
    """An evaluator with the command line's data and thresholds; rectangles need the stride, and no ``--square``."""
    return Evaluator(
        dataset,
        classes,
        (options.imgsz, options.imgsz),
        options.batch_size,
        options.workers,
        None if options.square else stride,
        options.confidence,
        options.nmsthres,
        name == "yolov7",
    )


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "quant-tools": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


# --- commands ---------------------------------------------------------------------------------------------------------


def quantize(name: str, options: argparse.Namespace) -> None:
    """PTQ, and QAT when ``--qat`` is given."""
    refuse_overwriting(
        options.weight,
        options.ptq,
        options.qat,
        options.summary,
        picture_file(options.summary) if options.qat else None,
    )
    device = pick_device(options.device)
    dataset = open_dataset(options.cocodir, options.data)
    model, info = checkpoint.load(options.weight, device, name)
    if have_quantizers(model):
        raise UserError(f"{options.weight} is quantized already: quantize starts from a float checkpoint")
    check_size(options.imgsz, model, "--imgsz")
    wants_map = options.eval_origin or options.eval_ptq or options.qat or options.max_drop is not None
    evaluator = (
        make_evaluator(name, options, dataset, upstream.class_count(model), int(model.stride.max()))
        if wants_map
        else None
    )
    for flag, file in (("--ptq", options.ptq), ("--qat", options.qat), ("--summary", options.summary)):
        if file is not None:
            check_writable(file, flag)
    task = task_loss(name, model, dataset.train, options) if options.qat else None
    torch.manual_seed(options.seed)

    summary: dict[str, Any] = {"options": vars(options), "versions": versions(), "figures": {}}

    def record(label: str, metrics: Metrics, **more: Any) -> None:
        summary["figures"][label] = {**asdict(metrics), **more}
        write_json(options.summary, summary)

    if options.eval_origin or options.max_drop is not None:
        record("float", evaluator(torch_predictor(model), "float"))
    equalize_channels(model, dataset, options)
    teacher = copy.deepcopy(model) if options.qat else None
    scales = insert_and_calibrate(model, dataset, options)
    info = {
        "groups": [list(group.names) for group in rules.shared_groups(model)],
        "calib_method": options.calib_method,
        "backend": passes.initialize(options.backend),
        "versions": versions(),
        "options": vars(options),
        "amax": amax_table(model),
    }
    summary.update(
        groups=info["groups"],
        amax=info["amax"],
        backend=info["backend"],
        shared_scales=[{**asdict(scale), "ratio": scale.ratio} for scale in scales],
    )
    checkpoint.save(options.ptq, model, info)
    LOG.info("PTQ checkpoint: %s", options.ptq)
    write_json(options.summary, summary)

    def hold_budget(part: nn.Module, file: str, key: str, content: dict[str, Any]) -> None:
        budget.hold(
            part,
            file,
            key,
            content,
            TensorLoader(training_sample(dataset, options), device),
            lambda: evaluator(torch_predictor(part), key.upper(), quiet=True),
            summary["figures"]["float"]["map"],
            options.max_drop,
            options.seed,
            record,
        )

    if options.max_drop is not None:
        hold_budget(model, options.ptq, "ptq", info)
    elif options.eval_ptq:
        record("ptq", evaluator(torch_predictor(model), "PTQ"))
    if options.qat:
        loader = Loader(
            dataset.train,
            (options.imgsz, options.imgsz),
            options.batch_size,
            options.workers,
            shuffle_seed=options.seed,
        )
        batches = LabelledImages(loader, device, None if task is None else upstream.class_count(model))
        train(
            model, teacher, batches, options, lambda label: evaluator(torch_predictor(model), label), info, record, task
        )
        if options.max_drop is not None:
            model, info = checkpoint.load(options.qat, device, name)  # the best epoch
            hold_budget(model, options.qat, "qat", info)
    LOG.info("Summary: %s", options.summary)


def export(name: str, options: argparse.Namespace) -> None:
    """Checkpoint to Q/DQ ONNX."""
    if len(options.size) > 2:
        raise UserError(f"--size takes N or H W, got {len(options.size)} numbers")
    least = onnx_export.MIN_OPSET[options.exporter]
    if options.opset is not None and options.opset < least:
        raise UserError(f"--opset {options.opset} cannot hold per-channel Q/DQ: use {least} or newer")
    file = options.save or str(Path(options.weight).with_suffix(".onnx"))
    refuse_overwriting(options.weight, file)
    model, info = checkpoint.load(options.weight, pick_device(options.device), name)
    size = (options.size[0], options.size[-1])
    for side in size:
        check_size(side, model, "--size")
    if not have_quantizers(model):
        LOG.info("%s is a float checkpoint: the ONNX has no Q/DQ", options.weight)
    check_writable(file, "--save")
    exported = onnx_export.export_onnx(
        model,
        file,
        onnx_export.ExportOptions(
            size,
            options.batch,
            options.dynamic,
            options.opset,
            options.exporter,
            options.simplify,
            options.fp16_remainder,
        ),
    )
    LOG.info("ONNX: %s", file)
    if have_quantizers(model):
        placement = recorded_placement(model, info.get("options", {}))
        blocks = [re.escape(path) for path in attention_blocks(model)]
        policy = [*placement.float_layers, *placement.float_weights, *blocks]
        LOG.info("%s", report_text(preflight(exported.graph, policy)))


def sensitive(name: str, options: argparse.Namespace) -> None:
    """Rank layers by the mAP with each in float in turn, or units by their error in the detections."""
    picture = picture_file(options.summary)
    refuse_overwriting(options.weight, options.summary, picture)
    device = pick_device(options.device)
    dataset = open_dataset(options.cocodir, options.data)
    model, _ = checkpoint.load(options.weight, device, name)
    check_size(options.imgsz, model, "--imgsz")
    check_writable(options.summary, "--summary")
    if options.metric == "map":
        dataset.val = dataset.val[: options.num_image]
        evaluator = make_evaluator(name, options, dataset, upstream.class_count(model), int(model.stride.max()))
    if have_quantizers(model):
        LOG.info("%s is quantized already and is analysed as it is", options.weight)
    else:
        equalize_channels(model, dataset, options)
        insert_and_calibrate(model, dataset, options)
    if options.metric == "map":
        predict = torch_predictor(model)
        sensitivity_analysis.sensitivity(model, lambda: evaluator(predict, "layer", quiet=True), options.summary)
    else:
        loader = training_sample(dataset, options, options.num_image or SQNR_IMAGES)
        sensitivity_by_sqnr(
            model,
            TensorLoader(loader, device),
            len(loader),
            len(loader.files),
            options.seed,
            options.ignore_policy,
            options.summary,
        )
    plot(options.summary, picture)
    LOG.info("Summary: %s, plot: %s", options.summary, picture)


def test(name: str, options: argparse.Namespace) -> None:
    """COCO mAP of a checkpoint or an ONNX."""
    dataset = open_dataset(options.cocodir, options.data)
    if options.save_json is not None:
        refuse_overwriting(options.weight, options.save_json)
        check_writable(options.save_json, "--save-json")
    if options.weight.endswith(".onnx"):
        predict: Predictor = OnnxPredictor(options.weight)
        evaluator = make_evaluator(name, options, dataset, predict.classes, None)
        evaluator.loader.size = predict.image_size((options.imgsz, options.imgsz))
        label = "ONNX Runtime"
    else:
        model, _ = checkpoint.load(options.weight, pick_device(options.device), name)
        check_size(options.imgsz, model, "--imgsz")
        missing = uncalibrated(model)
        if missing:
            raise UserError(f"{options.weight} was never calibrated ({missing[0]} has no scale): run quantize first")
        predict = torch_predictor(model)
        evaluator = make_evaluator(name, options, dataset, upstream.class_count(model), int(model.stride.max()))
        label = "quantized" if have_quantizers(model) else "float"
    metrics = evaluator(predict, f"{options.weight} ({label})")
    for class_name, value in metrics.per_class.items():
        LOG.info("  %-20s %.4f", class_name, value)
    if options.save_json is not None:
        write_json(options.save_json, {**asdict(metrics), "options": vars(options), "versions": versions()})
