"""QAT as the quantize command does it: train, measure every epoch, keep the best, draw the curve."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List

from torch import Tensor, nn

from quantization import checkpoint
from quantization.curve import plot
from quantization.evaluate import Metrics
from quantization.finetune import FinetuneOptions, finetune

LOG = logging.getLogger("quantization")


def picture_file(summary: str) -> str:
    """Where the plot of a summary goes: beside it."""
    return str(Path(summary).with_suffix(".png"))


def finetune_options(options: argparse.Namespace) -> FinetuneOptions:
    """The QAT options of the command line."""
    return FinetuneOptions(options.epochs, options.iters, options.lr, options.supervision_stride, options.loss,
                           options.head_weight, options.schedule, options.learn_scales, options.ema, options.amp)


def train(model: nn.Module, teacher: nn.Module, images: Iterable[Tensor], options: argparse.Namespace,
          evaluate: Callable[[str], Metrics], info: Dict[str, Any], record: Callable[..., None]) -> None:
    """QAT; after each epoch the mAP is measured, and the best epoch so far is the QAT checkpoint.

    Args:
        model: quantized and calibrated; trained in place.
        teacher: the float model.
        images: batches of training images (B, 3, H, W), floats in 0..1 on the models' device.
        options: of the command line.
        evaluate: measures ``model``; called with a label for the log.
        info: saved with the checkpoint.
        record: writes the figures into the summary.
    """
    history: List[Dict[str, float]] = []
    best: List[Metrics] = []

    def after_epoch(epoch: int, loss: float, lr: float) -> None:
        metrics = evaluate(f"QAT epoch {epoch + 1}/{options.epochs}")
        history.append({"epoch": epoch + 1, "loss": loss, "lr": lr, "map": metrics.map, "map50": metrics.map50})
        if not best or metrics.map > best[0].map:
            best[:] = [metrics]
            checkpoint.save(options.qat, model, {**info, "amax": checkpoint.amax_table(model), "epoch": epoch + 1,
                                                 "history": list(history)})
        record("qat", best[0], epochs=history)
        plot(options.summary, picture)

    picture = picture_file(options.summary)
    finetune(model, teacher, images, finetune_options(options), after_epoch)
    LOG.info("QAT checkpoint: %s (best of %d epochs); curve: %s", options.qat, len(history), picture)
