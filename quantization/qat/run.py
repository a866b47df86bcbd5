"""QAT as the quantize command does it: train, measure every epoch, keep the best, draw the curve."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

from torch import nn

from quantization.data.labels import any_labels, label_file
from quantization.data.tensors import Labelled
from quantization.errors import UserError
from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.options import QatOptions
from quantization.qat.curve import draw_curve
from quantization.qat.losses import TaskLoss
from quantization.qat.trainer import Trainer, finetune
from quantization.quantizers.switches import amax_table
from quantization.upstream import checkpoint
from quantization.upstream.loss import detection_loss
from quantization.upstream.record import CheckpointRecord

LOG = logging.getLogger("quantization")


def picture_file(summary: str) -> str:
    """Where the chart of a summary goes: beside it."""
    return str(Path(summary).with_suffix(".png"))


def task_loss(name: str, model: nn.Module, images: Sequence[str], weight: float | None, imgsz: int) -> TaskLoss | None:
    """Upstream's own loss as a term of QAT's; None where it is not wanted, or not possible and not asked for.

    Args:
        name: "yolov5" or "yolov7".
        model: what will be trained; that it is quantized later, in place, does not matter.
        images: files of the training images.
        weight: ``--task-weight``; None: 1 where it is possible.
        imgsz: longer image side in training, pixels.

    Raises:
        UserError: the weight is given, but there are no labels, or the head has another loss.
    """
    if weight == 0:
        return None
    try:
        if not any_labels(images):
            raise UserError(
                f"--task-weight needs labels, but no training image has any: {label_file(images[0])} is the "
                "first that is missing; add them, or give --task-weight 0"
            )
        loss = detection_loss(name, model, imgsz)
    except UserError as error:
        if weight is not None:
            raise
        LOG.warning("QAT follows the float model's outputs alone: %s", error)
        return None
    return TaskLoss(model.model[-1], loss, 1.0 if weight is None else weight)


@dataclass
class QatRun:
    """A QAT run: what it writes and how it is measured.

    Attributes:
        options: of the training.
        checkpoint: the .pt that holds the best epoch so far.
        record: saved in it.
        summary: takes the figures; its chart lies beside it.
        evaluate: measures the model; called with a label for the log.
        history: one record per epoch that is done.
        best: of the epochs that are done.
    """

    options: QatOptions
    checkpoint: str
    record: CheckpointRecord
    summary: Summary
    evaluate: Callable[[str], Metrics]
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Metrics | None = None

    def train(
        self, model: nn.Module, teacher: nn.Module, batches: Iterable[Labelled], task: TaskLoss | None = None
    ) -> None:
        """Train; after each epoch the mAP is measured, and the best epoch so far is the QAT checkpoint.

        Args:
            model: quantized and calibrated; trained in place.
            teacher: the float model.
            batches: of training images, on the models' device.
            task: the loss against labels; None: there is none.
        """

        def after_epoch(epoch: int, loss: float, lr: float) -> None:
            metrics = self.evaluate(f"QAT epoch {epoch + 1}/{self.options.epochs}")
            self.history.append(
                {"epoch": epoch + 1, "loss": loss, "lr": lr, "map": metrics.map, "map50": metrics.map50}
            )
            if self.best is None or metrics.map > self.best.map:
                self.best = metrics
                self._save(model, epoch + 1)
            self.summary.record("qat", self.best, epochs=self.history)
            self._draw()

        finetune(Trainer(model, teacher, self.options, task), batches, after_epoch)
        LOG.info(
            "QAT checkpoint: %s (best of %d epochs); curve: %s",
            self.checkpoint,
            len(self.history),
            picture_file(self.summary.file),
        )

    def _save(self, model: nn.Module, epoch: int) -> None:
        record = self.record.with_(amax=amax_table(model), epoch=epoch, history=list(self.history))
        checkpoint.save(self.checkpoint, model, record.content())

    def _draw(self) -> None:
        picture = picture_file(self.summary.file)
        try:
            draw_curve(self.summary.file, picture)
        except Exception as error:  # whatever it is: no picture is worth the epochs that are left
            LOG.warning("%s could not be drawn (%s); the figures are in %s", picture, error, self.summary.file)
