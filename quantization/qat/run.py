"""QAT as the quantize command does it: train, measure every epoch, keep the best, draw the curve."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from torch import nn

from quantization.data.labels import any_labels, label_file
from quantization.data.tensors import Labelled
from quantization.errors import UserError
from quantization.evaluation.coco import Metrics
from quantization.qat.curve import plot
from quantization.qat.losses import TaskLoss
from quantization.qat.trainer import FinetuneOptions, finetune
from quantization.quantizers.switches import amax_table
from quantization.upstream import checkpoint
from quantization.upstream.loss import detection_loss

LOG = logging.getLogger("quantization")


def picture_file(summary: str) -> str:
    """Where the plot of a summary goes: beside it."""
    return str(Path(summary).with_suffix(".png"))


def finetune_options(options: argparse.Namespace) -> FinetuneOptions:
    """The QAT options of the command line."""
    return FinetuneOptions(
        options.epochs,
        options.iters,
        options.lr,
        options.supervision_stride,
        options.loss,
        options.head_weight,
        options.schedule,
        options.learn_scales,
        options.ema,
        options.amp,
    )


def task_loss(name: str, model: nn.Module, images: Sequence[str], options: argparse.Namespace) -> TaskLoss | None:
    """What ``--task-weight`` asks for; None for 0.

    Args:
        name: "yolov5" or "yolov7".
        model: what will be trained; that it is quantized later, in place, does not matter.
        images: files of the training images.
        options: of the command line.

    Raises:
        UserError: the weight is given, but there are no labels, or the head has another loss.
    """
    if options.task_weight == 0:
        return None
    try:
        if not any_labels(images):
            raise UserError(
                f"--task-weight needs labels, but no training image has any: {label_file(images[0])} is the "
                "first that is missing; add them, or give --task-weight 0"
            )
        loss = detection_loss(name, model, options.imgsz)
    except UserError as error:
        if options.task_weight is not None:
            raise
        LOG.warning("QAT goes by the float model's outputs alone: %s", error)
        return None
    return TaskLoss(model.model[-1], loss, 1.0 if options.task_weight is None else options.task_weight)


def train(
    model: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Labelled],
    options: argparse.Namespace,
    evaluate: Callable[[str], Metrics],
    info: dict[str, Any],
    record: Callable[..., None],
    task: TaskLoss | None = None,
) -> None:
    """QAT; after each epoch the mAP is measured, and the best epoch so far is the QAT checkpoint.

    Args:
        model: quantized and calibrated; trained in place.
        teacher: the float model.
        batches: of training images, on the models' device.
        options: of the command line.
        evaluate: measures ``model``; called with a label for the log.
        info: saved with the checkpoint.
        record: writes the figures into the summary.
        task: the loss against labels; None: there is none.
    """
    history: list[dict[str, float]] = []
    best: list[Metrics] = []

    def after_epoch(epoch: int, loss: float, lr: float) -> None:
        metrics = evaluate(f"QAT epoch {epoch + 1}/{options.epochs}")
        history.append({"epoch": epoch + 1, "loss": loss, "lr": lr, "map": metrics.map, "map50": metrics.map50})
        if not best or metrics.map > best[0].map:
            best[:] = [metrics]
            checkpoint.save(
                options.qat, model, {**info, "amax": amax_table(model), "epoch": epoch + 1, "history": list(history)}
            )
        record("qat", best[0], epochs=history)
        try:
            plot(options.summary, picture)
        except (ImportError, OSError) as error:  # no picture is worth the epochs that are left
            LOG.warning(
                "%s could not be drawn (%s): install matplotlib, or look into %s", picture, error, options.summary
            )

    picture = picture_file(options.summary)
    finetune(model, teacher, batches, finetune_options(options), after_epoch, task)
    LOG.info("QAT checkpoint: %s (best of %d epochs); curve: %s", options.qat, len(history), picture)
