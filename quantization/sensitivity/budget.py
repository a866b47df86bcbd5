"""``quantize --max-drop``: the fewest units to leave in float so that the mAP stays within a budget.

ranking by SQNR, worst first:   a b c d e f g h ...
1. leave the first 1, 2, 4, 8 ... in float until the drop is within the budget
2. bisect between the last two numbers
3. give units back, from the best end, while the drop stays within the budget
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Sequence

from torch import Tensor, nn

from quantization.evaluation.coco import Metrics
from quantization.placement.policy import ignore_policy, policy_line
from quantization.sensitivity import first_order as sqnr
from quantization.upstream import checkpoint

LOG = logging.getLogger("quantization")
GIVE_BACK = 8  # evaluations at most that try to quantize a unit again


@dataclass
class Outcome:
    """What ``keep_within`` did.

    Attributes:
        left: units in float now, the worst SQNR first.
        metrics: of the model as it is now.
        drop: points of mAP@0.5:0.95 below the float model.
        met: whether the drop is within the budget.
        steps: one record an evaluation: number of units in float, map, drop.
    """

    left: list[sqnr.Unit]
    metrics: Metrics
    drop: float
    met: bool
    steps: list[dict[str, float]] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        """Paths of the modules in float."""
        return [path for unit in self.left for path in unit.modules]

    def record(self, points: float, policy: Sequence[str]) -> dict[str, Any]:
        """For the summary: budget, result, steps, and the ``--ignore-policy`` to reuse."""
        return {
            "max_drop": points,
            "drop": self.drop,
            "met": self.met,
            "left_in_float": self.modules,
            "ignore_policy": [*policy, *ignore_policy(self.modules)],
            "steps": self.steps,
        }


def keep_within(
    rank: Callable[[], Sequence[sqnr.Unit]],
    evaluate: Callable[[], Metrics],
    float_map: float,
    points: float,
    label: str,
) -> Outcome:
    """Leave the fewest units in float that keep the mAP within ``points`` of the float model's.

    Args:
        rank: gives the model's units, the worst SQNR first; called only where the budget is exceeded. The units of the
            result end up switched off, all others on.
        evaluate: measures the model as it is; on the first call all units are on.
        float_map: mAP@0.5:0.95 of the float model, a share of 1.
        points: the budget, in points: 0.1 is 0.001 of the share.
        label: of the model, for the log.

    Returns:
        The outcome; where even the whole ranking exceeds the budget, the best mAP that was seen.
    """
    ranked: list[sqnr.Unit] = []
    seen: dict[frozenset[int], Metrics] = {}
    steps: list[dict[str, float]] = []

    def drop(metrics: Metrics) -> float:
        return 100 * (float_map - metrics.map)

    def fits(left: Iterable[int]) -> bool:
        chosen = frozenset(left)
        if chosen not in seen:
            leave(ranked, chosen)
            seen[chosen] = metrics = evaluate()
            steps.append({"units": len(chosen), "map": metrics.map, "drop": drop(metrics)})
            LOG.info(
                "%s, %d units in float: mAP@0.5:0.95 %.4f, %.2f points below float (budget %g)",
                label,
                len(chosen),
                metrics.map,
                drop(metrics),
                points,
            )
        return drop(seen[chosen]) <= points + 1e-9  # of rounding

    number, too_few = 0, -1
    if not fits(()):
        ranked += rank()
    while not fits(range(number)) and number < len(ranked):
        too_few, number = number, min(max(1, 2 * number), len(ranked))
    if fits(range(number)):
        while number - too_few > 1:
            middle = (number + too_few) // 2
            if fits(range(middle)):
                number = middle
            else:
                too_few = middle
        left = list(range(number))
        for index in list(reversed(left))[1 : 1 + GIVE_BACK]:  # without the last one it is known to be too few
            if fits(set(left) - {index}):
                left.remove(index)
        best = frozenset(left)
    else:
        best = max(seen, key=lambda chosen: (seen[chosen].map, -len(chosen)))
    leave(ranked, best)
    metrics = seen[best]
    return Outcome(
        [unit for index, unit in enumerate(ranked) if index in best],
        metrics,
        drop(metrics),
        drop(metrics) <= points + 1e-9,
        steps,
    )


def leave(ranked: Sequence[sqnr.Unit], chosen: frozenset[int]) -> None:
    """Switch the chosen units to float and all others to quantized."""
    for index, unit in enumerate(ranked):
        unit.set_float(index in chosen)


def apply_budget(
    model: nn.Module,
    batches: Iterable[Tensor],
    evaluate: Callable[[], Metrics],
    float_map: float,
    points: float,
    policy: Sequence[str],
    label: str,
    seed: int = 0,
) -> Outcome:
    """``keep_within`` on a model, ranked by SQNR, with the result in the log.

    Args:
        model: quantized and calibrated; quantizers of the units that are left in float end up disabled.
        batches: images for the ranking, floats in 0..1 (B, 3, H, W).
        evaluate: measures ``model`` as it is.
        float_map: mAP@0.5:0.95 of the float model.
        points: the budget.
        policy: the run's own ``--ignore-policy``, repeated in the proposal.
        label: for the log.
        seed: of the ranking's probes.
    """
    outcome = keep_within(
        lambda: [error.unit for error in sqnr.measure(model, sqnr.find_units(model), batches, seed=seed)],
        evaluate,
        float_map,
        points,
        label,
    )
    report(outcome, points, policy, label)
    return outcome


def report(outcome: Outcome, points: float, policy: Sequence[str], label: str) -> None:
    """Log what is left in float, and the ``--ignore-policy`` to reuse."""
    if not outcome.met:
        LOG.warning(
            "%s: the budget of %g points is not met, not even with all units in float; the best that was seen "
            "is kept: %d units in float, %.2f points below float",
            label,
            points,
            len(outcome.left),
            outcome.drop,
        )
    if outcome.left:
        LOG.info(
            "%s: %d units are left in float, %.2f points below float. To reuse:\n  %s",
            label,
            len(outcome.left),
            outcome.drop,
            policy_line([*policy, *ignore_policy(outcome.modules)]),
        )
    elif outcome.met:
        LOG.info(
            "%s: %.2f points below float is within the budget of %g; all units stay quantized",
            label,
            outcome.drop,
            points,
        )


def hold(
    model: nn.Module,
    file: str,
    key: str,
    info: dict[str, Any],
    images: Iterable[Tensor],
    evaluate: Callable[[], Metrics],
    float_map: float,
    points: float,
    seed: int,
    record: Callable[..., None],
) -> None:
    """Make the checkpoint ``file`` meet the budget, and record how.

    Args:
        model: what ``file`` holds; all its units are on again afterwards, since training may mend what they cost.
        file: written anew where units must be left in float.
        key: "ptq" or "qat", for log and summary.
        info: saved in the checkpoint, with the units' modules added to its ``--ignore-policy``.
        images, evaluate, float_map, points, seed: see ``apply_budget``.
        record: takes key, metrics and more for the summary.
    """
    policy = info["options"]["ignore_policy"]
    outcome = apply_budget(model, images, evaluate, float_map, points, policy, key.upper(), seed)
    result = outcome.record(points, policy)
    if outcome.left:
        checkpoint.save(
            file,
            model,
            {**info, "options": {**info["options"], "ignore_policy": result["ignore_policy"]}, "max_drop": result},
        )
    record(key, outcome.metrics, max_drop=result, **({"epochs": info["history"]} if "history" in info else {}))
    for unit in outcome.left:
        unit.set_float(False)
