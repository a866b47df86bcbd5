"""How far a model is below float, with its interval, and what that says of a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from quantization.evaluation.coco import Metrics
from quantization.evaluation.wording import points_text


@dataclass(frozen=True)
class Drop:
    """How far a model is below float, and what that says of a budget.

    Attributes:
        points: points of mAP@0.5:0.95 below the float model; negative above.
        plus_minus: half of the width of the 95 % interval.
        budget: points that it may be.
        images: number of validation images.
    """

    points: float
    plus_minus: float
    budget: float
    images: int

    @classmethod
    def of(cls, metrics: Metrics, budget: float) -> Drop:
        """That of figures which were compared with "float"."""
        found = metrics.against["float"]["map"]
        return cls(-found["points"], found["plus_minus"] or 0.0, budget, metrics.images)

    @property
    def met(self) -> bool:
        """Whether the figure is within the budget."""
        return self.points <= self.budget + 1e-9  # of rounding

    @property
    def exceeds(self) -> bool:
        """Whether the data show that it is over the budget."""
        return self.points - self.plus_minus > self.budget + 1e-9

    @property
    def undecided(self) -> bool:
        """Whether the budget lies within the interval."""
        return not self.exceeds and self.points + self.plus_minus > self.budget + 1e-9

    @property
    def images_to_decide(self) -> int | None:
        """About how many images would leave the budget out of the interval, were the figure right; None: no number would.

        The interval narrows with the root of their number.
        """
        distance = abs(self.points - self.budget)
        return math.ceil(self.images * (self.plus_minus / distance) ** 2) if distance > 1e-9 else None

    def __str__(self) -> str:
        return points_text({"points": -self.points, "plus_minus": self.plus_minus}) + " points against float"
