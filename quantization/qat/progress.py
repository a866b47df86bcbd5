"""Where a training stands, and whether its loss is lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from quantization.errors import UserError

DIVERGED = 20.0  # times the first loss


class Diverged(UserError):
    """The loss is lost; no state of the training helps."""


@dataclass
class LossWatch:
    """Stops a run whose loss is lost.

    Attributes:
        first: loss of the first look; None: there was none.
        last: of the last look.

    Raises, from ``check``:
        Diverged: NaN, infinity, or two looks in a row at more than ``DIVERGED`` times the first.
    """

    first: float | None = None
    last: float = 0.0

    def check(self, loss: float, epoch: int, step: int) -> None:
        """Look at the loss of a step; see the class for what it raises."""
        where = f"QAT stopped in epoch {epoch + 1}, step {step + 1}"
        remedy = "lower --lr; the PTQ checkpoint is intact"
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise Diverged(f"{where}: the loss is {loss}; {remedy}")
        if self.first is None:
            self.first = loss
        elif min(loss, self.last) > DIVERGED * self.first:
            raise Diverged(f"{where}: the loss grew from {self.first:.4g} to {loss:.4g}; {remedy}")
        self.last = loss


@dataclass
class Progress:
    """Where a training stands: epoch and step are also the position in the schedule.

    Attributes:
        epoch: epochs that are done, with their evaluation.
        step: steps that are done in the epoch after them.
        total: sum of their losses, shape () in float32 on the device, or a number.
        watch: of the loss.
    """

    epoch: int = 0
    step: int = 0
    total: Any = 0.0
    watch: LossWatch = field(default_factory=LossWatch)

    def content(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "total": float(self.total)}

    @classmethod
    def of(cls, content: dict[str, Any]) -> Progress:
        """From what ``content`` gave."""
        return cls(**{**content, "watch": LossWatch(**content["watch"])})

    def data_position(self, steps: int, batches: int) -> tuple[int, int]:
        """How many passes over the data have been begun and finished, and how many batches of the next one were used.

        Args:
            steps: per epoch; each epoch begins with a new pass.
            batches: per pass.
        """
        epoch, step = (self.epoch + 1, 0) if self.step == steps else (self.epoch, self.step)
        return epoch * -(-steps // batches) + step // batches, step % batches
