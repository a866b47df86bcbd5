"""QAT as the quantize command does it: train, measure every epoch, keep the best, draw the curve.

The best epoch is the one with the highest AP with all classes merged (``Metrics.merged``). In the mean over classes the
only box of a class has the weight of a class, so that one detection more or less decides.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable

from torch import nn

from quantization.data.labels import label_file
from quantization.data.tensors import Labelled
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.evaluation.wording import points_text
from quantization.options import QatOptions
from quantization.qat.curve import draw_curve
from quantization.qat.losses import TaskLoss
from quantization.qat.progress import Progress
from quantization.qat.state import RunState, restore_generators
from quantization.qat.trainer import Trainer, finetune
from quantization.quantizers.switches import amax_table
from quantization.upstream import checkpoint
from quantization.upstream.loss import detection_loss
from quantization.upstream.model import layers_of
from quantization.upstream.record import CheckpointRecord

LOG = logging.getLogger("quantization")


def picture_file(summary: str) -> str:
    """Where the chart of a summary goes: beside it."""
    return str(Path(summary).with_suffix(".png"))


def task_loss(name: str, model: Any, weight: float | None, imgsz: int) -> TaskLoss | None:
    """Upstream's own loss as a term of QAT's; None where it is not wanted, or not possible and not asked for.

    Args:
        name: "yolov5" or "yolov7".
        model: what will be trained; that it is quantized later, in place, does not matter.
        weight: ``--task-weight``; None: 1 where it is possible.
        imgsz: longer image side in training, pixels.

    Raises:
        UserError: the weight is given, but the head has another loss.
    """
    if weight == 0:
        return None
    try:
        loss = detection_loss(name, model, imgsz)
    except UserError as error:
        if weight is not None:
            raise
        LOG.warning("QAT follows the float model's outputs alone: %s", error)
        return None
    return TaskLoss(layers_of(model)[-1], loss, 1.0 if weight is None else weight)


def missing_labels(image: str, weight: float | None) -> None:
    """Say that QAT goes without labels, since no training image has any.

    Args:
        image: the first training image.
        weight: ``--task-weight``; None: not given.

    Raises:
        UserError: the weight is given.
    """
    message = (
        f"--task-weight needs labels, but no training image has any: {label_file(image)} is the first that is missing; "
        "add them, or give --task-weight 0"
    )
    if weight is not None:
        raise UserError(message)
    LOG.warning("QAT follows the float model's outputs alone: %s", message)


@dataclass(frozen=True)
class EpochVerdict:
    """How the best epoch compares with PTQ, by AP with classes merged.

    Attributes:
        epoch: which.
        points: above PTQ; None: there is no figure.
        plus_minus: half of the width of its 95 % interval. That of a best of many epochs: a little too narrow.
    """

    epoch: int
    points: float | None
    plus_minus: float | None

    @property
    def better(self) -> bool:
        """Whether it is above PTQ by more than the noise."""
        return self.points is not None and self.points > (self.plus_minus or 0.0)

    def log(self) -> None:
        """Say it; what is not better is a warning."""
        apart = points_text({"points": self.points, "plus_minus": self.plus_minus})
        if self.better:
            LOG.info("QAT is better than PTQ: %s points, classes merged", apart)
            return
        worse = self.points is not None and -self.points > (self.plus_minus or 0.0)
        LOG.warning(
            "WARNING: no epoch of QAT is better than PTQ beyond the noise of these validation images: the best one is "
            "%s points, classes merged%s. Use the PTQ checkpoint, train longer or at a lower --lr, or on the float model's "
            "outputs alone (--task-weight 0)",
            apart,
            ", which is worse than PTQ" if worse else "",
        )


def _entry(epoch: int, metrics: Metrics, loss: float | None = None, lr: float | None = None) -> dict[str, Any]:
    """An epoch's row of the history; 0 is PTQ."""
    row = {"epoch": epoch, "loss": loss, "lr": lr, "map": metrics.map, "map50": metrics.map50, "merged": metrics.merged}
    return {**row, "against_ptq": metrics.against["ptq"]["merged"]} if epoch else row


@dataclass
class QatRun:
    """A QAT run: what it writes and how it is measured.

    Attributes:
        options: of the training.
        checkpoint: the .pt that holds the best epoch so far.
        record: saved in it.
        summary: takes the figures; its chart lies beside it.
        evaluate: measures the model, also against "ptq"; called with a label for the log.
        start: what PTQ reached: epoch 0 of the history.
        state: of the run, kept up to date; an earlier part of the training in it is continued. None: nothing is kept.
        kept: model and record in ``checkpoint``, of that earlier part.
        history: one record per epoch that is done, after PTQ's.
        best: of the epochs that are done.
        progress: where the training stands.
    """

    options: QatOptions
    checkpoint: str
    record: CheckpointRecord
    summary: Summary
    evaluate: Callable[[str], Metrics]
    start: Metrics
    state: RunState | None = None
    kept: tuple[nn.Module, CheckpointRecord] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Metrics | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self._saved = True  # nothing waits to be written
        self.history = [_entry(0, self.start)]
        before = None if self.state is None else self.state.facts.get("qat")
        if before is not None:
            self.history, self.progress = list(before["history"]), Progress.of(before["progress"])
            self.best = None if before["best"] is None else Metrics(**before["best"])

    @property
    def verdict(self) -> EpochVerdict:
        """How the best epoch compares with PTQ."""
        best = max(self.history[1:], key=lambda entry: float(entry["merged"]))  # the first of equal ones
        return EpochVerdict(best["epoch"], **best["against_ptq"])

    def train(
        self, model: nn.Module, teacher: nn.Module, batches: Iterable[Labelled], task: TaskLoss | None = None
    ) -> None:
        """Train; after each epoch the mAP is measured, and the best epoch so far is the QAT checkpoint.

        Args:
            model: quantized and calibrated; trained in place.
            teacher: the float model.
            batches: of training images, on the models' device.
            task: the loss against labels; None: there is none.

        Raises:
            Diverged: the loss is lost.
            UserError: the checkpoint could not be written.
        """
        trainer = Trainer(model, teacher, self.options, task)
        if self.state is not None and "trainer" in self.state.tensors:
            trainer.restore(self.state.tensors["trainer"])
            restore_generators(self.state.tensors["random"])
        finetune(
            trainer,
            batches,
            lambda epoch, loss, lr: self._after_epoch(model, epoch, loss, lr),
            self.progress,
            lambda important: self._keep(trainer, important),
        )
        self.write_best(last=True)
        if RANKS.main and self.best is not None and not Path(picture_file(self.summary.file)).exists():
            self._record()  # what failed after the last epoch
        LOG.info(
            "QAT checkpoint: %s (epoch %d, the best of %d by AP with classes merged); curve: %s",
            self.checkpoint,
            self.verdict.epoch,
            len(self.history) - 1,
            picture_file(self.summary.file),
        )
        self.verdict.log()

    def _after_epoch(self, model: nn.Module, epoch: int, loss: float, lr: float) -> None:
        metrics = self.evaluate(f"QAT epoch {epoch + 1}/{self.options.epochs}")
        self.history.append(_entry(epoch + 1, metrics, loss, lr))
        if self.best is None or metrics.merged > self.best.merged:
            self.best = metrics
            record = self.record.with_(amax=amax_table(model), epoch=epoch + 1, history=list(self.history))
            if RANKS.main:
                self.kept, self._saved = (copy.deepcopy(model).cpu(), record), False
        self.write_best()
        self._record()

    def write_best(self, last: bool = False) -> None:
        """Write the best epoch if it is not written, or its file has gone. A failure costs a warning, at last an error."""
        if self.kept is None or (self._saved and Path(self.checkpoint).is_file()):
            return
        try:
            checkpoint.save(self.checkpoint, self.kept[0], self.kept[1].content())
        except UserError as error:
            self._saved = False
            if not last:
                LOG.warning("%s; it is tried again after the next epoch", error)
                return
            if self.state is None:
                raise
            with self.state.aside():
                checkpoint.save(self.checkpoint, self.kept[0], self.kept[1].content())
        self._saved = True

    def _keep(self, trainer: Trainer, important: bool) -> None:
        """Keep the state if it is time to.

        While the best epoch waits to be written, the state before it stays: going on from there measures and writes it.
        """
        if self.state is None or not self._saved or not (important or self.state.due):
            return
        best = None if self.best is None else self.best.content()
        qat = {"progress": self.progress.content(), "history": self.history, "best": best}
        self.state.keep({"stage": "qat", "qat": qat, "summary": self.summary.content}, {"trainer": trainer.state()})

    def _record(self) -> None:
        """Figures and curve so far."""
        assert self.best is not None  # an epoch is done
        self.summary.record("qat", self.best, epochs=self.history, epoch=self.verdict.epoch)
        self.draw()

    def draw(self) -> None:
        """Draw the curve from the summary."""
        if not RANKS.main:
            return
        picture = picture_file(self.summary.file)
        try:
            draw_curve(self.summary.file, picture)
        except Exception as error:  # whatever it is: no picture is worth the epochs that are left
            LOG.warning("%s could not be drawn (%s); the figures are in %s", picture, error, self.summary.file)
