"""``quantize --max-drop``: the fewest units to leave in float so that the mAP stays within a budget, as far as the data tell.

A drop has an interval (``evaluation.bootstrap``). It exceeds the budget where the whole interval does: a drop of 0.6 +- 0.4
points is no reason to leave layers in float for a budget of 0.5, and with more images it may be one.

ranking by SQNR, worst first:   a b c d e f g h ...
1. leave the first 1, 2, 4, 8 ... in float until the drop does not exceed the budget any more
2. bisect between the last two numbers
3. give units back, from the best end, while the drop does not exceed the budget
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Sequence

from torch import Tensor, nn

from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.placement.policy import ignore_policy, policy_line
from quantization.sensitivity.drop import Drop
from quantization.sensitivity.first_order import Probes, measure
from quantization.sensitivity.int8_share import int8_share, multiply_accumulates
from quantization.sensitivity.units import Unit, find_units
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord

LOG = logging.getLogger("quantization")
GIVE_BACK = 8  # evaluations at most that try to quantize a unit again


@dataclass
class Outcome:
    """What ``keep_within`` did.

    Attributes:
        left: units in float now, the worst SQNR first.
        metrics: of the model as it is now.
        drop: of the model as it is now.
        steps: one record per evaluation: number of units in float, map, drop, plus_minus.
    """

    left: list[Unit]
    metrics: Metrics
    drop: Drop
    steps: list[dict[str, float]] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        """Paths of the modules in float."""
        return [path for unit in self.left for path in unit.modules]

    def record(self, policy: Sequence[str]) -> dict[str, Any]:
        """For the summary: budget, result, steps, and the ``--ignore-policy`` to reuse."""
        return {
            "max_drop": self.drop.budget,
            "drop": self.drop.points,
            "plus_minus": self.drop.plus_minus,
            "met": self.drop.met,
            "undecided": self.drop.undecided,
            "left_in_float": self.modules,
            "ignore_policy": [*policy, *ignore_policy(self.modules)],
            "steps": self.steps,
        }


class _Search:
    """The search of ``keep_within``: which units of a ranking have to be in float.

    Args:
        evaluate: measures the model as it is.
        budget: in points.
        label: of the model, for the log.
    """

    def __init__(self, evaluate: Callable[[], Metrics], budget: float, label: str) -> None:
        self.evaluate, self.budget, self.label = evaluate, budget, label
        self.ranked: Sequence[Unit] = []
        self.seen: dict[frozenset[int], Metrics] = {}
        self.steps: list[dict[str, float]] = []

    def fits(self, left: Iterable[int]) -> bool:
        """Whether the budget is not exceeded with these units in float; each set is measured once."""
        chosen = frozenset(left)
        if chosen not in self.seen:
            leave(self.ranked, chosen)
            self.seen[chosen] = metrics = self.evaluate()
            drop = Drop.of(metrics, self.budget)
            self.steps.append(
                {"units": len(chosen), "map": metrics.map, "drop": drop.points, "plus_minus": drop.plus_minus}
            )
            LOG.info(
                "%s, %d units in float: mAP@0.5:0.95 %.4f, %s (budget: %g below it; %s)",
                self.label,
                len(chosen),
                metrics.map,
                drop,
                self.budget,
                metrics.conditions,
            )
        return not Drop.of(self.seen[chosen], self.budget).exceeds

    def shortest(self) -> int | None:
        """The fewest units from the top of the ranking that do not exceed the budget; None: even all of them do."""
        number, too_few = 0, -1
        while not self.fits(range(number)):
            if number == len(self.ranked):
                return None
            too_few, number = number, min(max(1, 2 * number), len(self.ranked))
        while number - too_few > 1:
            middle = (number + too_few) // 2
            if self.fits(range(middle)):
                number = middle
            else:
                too_few = middle
        return number

    def thinned(self, number: int) -> frozenset[int]:
        """The first ``number`` units without those that are not needed."""
        left = list(range(number))
        for index in list(reversed(left))[1 : 1 + GIVE_BACK]:  # without the last one it is known to be too few
            if self.fits(set(left) - {index}):
                left.remove(index)
        return frozenset(left)


def keep_within(
    rank: Callable[[], Sequence[Unit]], evaluate: Callable[[], Metrics], budget: float, label: str
) -> Outcome:
    """Leave the fewest units in float with which the data do not show that the mAP is below the float model's by more.

    Args:
        rank: gives the model's units, the worst SQNR first; called only where the budget is exceeded. The units of the
            result end up switched off, all others on.
        evaluate: measures the model as it is, against "float"; on the first call all units are on.
        budget: in points: 0.1 is 0.001 of the mAP.
        label: of the model, for the log.

    Returns:
        The outcome; where even the whole ranking exceeds the budget, the best mAP that was seen.
    """
    search = _Search(evaluate, budget, label)
    if not search.fits(()):
        search.ranked = rank()
    number = search.shortest()
    if number is None:
        best = max(search.seen, key=lambda chosen: (search.seen[chosen].map, -len(chosen)))
    else:
        best = search.thinned(number)
    leave(search.ranked, best)
    metrics = search.seen[best]
    left = [unit for index, unit in enumerate(search.ranked) if index in best]
    return Outcome(left, metrics, Drop.of(metrics, budget), search.steps)


def leave(ranked: Sequence[Unit], chosen: frozenset[int]) -> None:
    """Switch the chosen units to float and all others to quantized."""
    for index, unit in enumerate(ranked):
        unit.set_float(index in chosen)


def report(outcome: Outcome, policy: Sequence[str], label: str, shares: tuple[float, float]) -> None:
    """Log what is left in float, what that costs, and the ``--ignore-policy`` to reuse.

    Args:
        outcome: of the search.
        policy: what was in float before.
        label: of the model.
        shares: of the multiply-accumulates in INT8, before and now.
    """
    drop, count = outcome.drop, len(outcome.left)
    if drop.exceeds:
        LOG.warning(
            "WARNING: %s: the budget of %g points is not met, not even with all units in float; the best that was seen is "
            "kept: %d units in float, %s",
            label,
            drop.budget,
            count,
            drop,
        )
    elif drop.undecided:
        needed = drop.images_to_decide
        LOG.warning(
            "WARNING: %s: %d validation images are too few to tell whether the budget of %g points is met (%s): %s; no more "
            "units are left in float for that",
            label,
            drop.images,
            drop.budget,
            drop,
            "no number would do" if needed is None else f"it would take about {needed}",
        )
    if outcome.left:
        _report_left(outcome, policy, label, shares)
    elif not drop.exceeds:
        words = "is not shown to exceed" if drop.undecided else "is within"
        LOG.info("%s: %s %s the budget of %g; all units stay quantized", label, drop, words, drop.budget)


def _report_left(outcome: Outcome, policy: Sequence[str], label: str, shares: tuple[float, float]) -> None:
    """Log the units in float; see ``report``."""
    LOG.info(
        "%s: %d units are left in float, %s; %.1f %% of the multiply-accumulates of convolutions and linear layers stay in "
        "INT8, of %.1f %%. To reuse:\n  %s",
        label,
        len(outcome.left),
        outcome.drop,
        100 * shares[1],
        100 * shares[0],
        policy_line([*policy, *ignore_policy(outcome.modules)]),
    )


@dataclass(frozen=True)
class Budget:
    """What ``--max-drop`` asks for.

    Attributes:
        points: the budget.
        images: batches for the ranking, floats in 0..1 (B, 3, H, W).
        seed: of the ranking's probes.
        summary: takes the outcome.
    """

    points: float
    images: Iterable[Tensor]
    seed: int
    summary: Summary

    def hold(
        self, model: nn.Module, file: str, key: str, record: CheckpointRecord, evaluate: Callable[[], Metrics]
    ) -> Outcome:
        """Make the checkpoint ``file`` meet the budget, and record how.

        Args:
            model: what ``file`` holds; all its units are on again afterwards, since training may recover what they cost.
            file: rewritten where units must be left in float.
            key: "ptq" or "qat", for log and summary.
            record: of the checkpoint; the units' modules are added to its placement and ``--ignore-policy``.
            evaluate: measures ``model`` as it is, against "float".
        """
        counts = multiply_accumulates(model, next(iter(self.images))[:1])
        before = int8_share(counts)
        policy = list(record.options["ignore_policy"])

        def rank() -> list[Unit]:
            return [error.unit for error in measure(model, find_units(model), self.images, Probes(seed=self.seed))]

        outcome = keep_within(rank, evaluate, self.points, key.upper())
        after = int8_share(counts)
        report(outcome, policy, key.upper(), (before, after))
        result = {**outcome.record(policy), "int8_share": {"before": before, "after": after}}
        if outcome.left:
            placement = dict(record.placement or {})
            placement["float_layers"] = [*placement.get("float_layers", ()), *outcome.modules]
            options = {**record.options, "ignore_policy": result["ignore_policy"]}
            written = record.with_(options=options, placement=placement, max_drop=result)
            checkpoint.save(file, model, written.content())
        trained = {"epochs": record.history, "epoch": record.epoch} if record.history else {}
        self.summary.record(key, outcome.metrics, max_drop=result, **trained)
        for unit in outcome.left:
            unit.set_float(False)
        return outcome
