"""How the boxes of two models differ in one image, and which boxes the labels do not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from quantization.evaluation.box_differences import matching_boxes

SAME = 0.5  # IoU from which two boxes of one class are the same object, as in mAP@0.5
MOVED = 0.8  # IoU below which the same object's box has moved: visibly, for boxes that are not tiny
FAINT = 0.5  # share of the confidence down to which a model's boxes still explain what the other one has


@dataclass(frozen=True)
class Match:
    """One object as two models see it.

    Attributes:
        kind: "kept", "moved", "lost" (the second model does not have it) or "new" (the first does not).
        first: (6,) box of the first model: x1, y1, x2, y2, score, class; None: it has none, not even a faint one.
        second: likewise of the second.
        iou: of both boxes; 0 where there is one.
    """

    kind: str
    first: np.ndarray | None
    second: np.ndarray | None
    iou: float

    @property
    def cost(self) -> float:
        """How much the models disagree: 1 for a certain box that one of them lacks, 0 for the same box and score.

        The larger score less the smaller one, which counts as far as the boxes overlap: crossing the threshold by a
        hair costs a hair.
        """
        scores = [0.0 if box is None else float(box[4]) for box in (self.first, self.second)]
        return max(scores) - self.iou * min(scores)


def match_models(first: np.ndarray, second: np.ndarray, confidence: float) -> list[Match]:
    """The objects of two models in one image, those that they disagree on the most first.

    Args:
        first: (N, 6) boxes of the first model with scores from ``FAINT * confidence`` on.
        second: likewise of the second.
        confidence: score from which a box counts; fainter ones only explain where it has gone.
    """
    pairs = matching_boxes(first, second, SAME)
    matches = []
    for one, other, iou in pairs:
        seen = (first[one, 4] > confidence, second[other, 4] > confidence)
        if any(seen):
            kind = ("kept" if iou >= MOVED else "moved") if all(seen) else "lost" if seen[0] else "new"
            matches.append(Match(kind, first[one], second[other], iou))
    paired = [{pair[side] for pair in pairs} for side in (0, 1)]
    for number, box in enumerate(first):
        if box[4] > confidence and number not in paired[0]:
            matches.append(Match("lost", box, None, 0.0))
    for number, box in enumerate(second):
        if box[4] > confidence and number not in paired[1]:
            matches.append(Match("new", None, box, 0.0))
    return sorted(matches, key=lambda match: (match.kind == "kept", -match.cost))


def disagreement(matches: Sequence[Match]) -> float:
    """How much two models disagree on an image: the cost of all boxes that are not kept."""
    return sum(match.cost for match in matches if match.kind != "kept")


def label_errors(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> tuple[list[int], list[int]]:
    """What the labels say of a model's boxes.

    Args:
        found: (N, 6) boxes.
        truth: (M, 5) labelled boxes: x1, y1, x2, y2, class.
        crowd: (M,) bool, labels of crowds: in them detections count neither way.

    Returns:
        Indices of the labels that are missed and of the boxes that are false.
    """
    single, groups = truth[~crowd], truth[crowd]
    pairs = matching_boxes(found, single, SAME)
    hit = {one for one, _, _ in pairs}
    missed = [int(np.flatnonzero(~crowd)[m]) for m in sorted(set(range(len(single))) - {pair[1] for pair in pairs})]
    false = [n for n in range(len(found)) if n not in hit and not _inside(found[n], groups)]
    return missed, false


def _inside(box: np.ndarray, groups: np.ndarray) -> bool:
    """Whether at least half of a box lies in a crowd of its class, pycocotools' measure at IoU 0.5."""
    low, high = np.maximum(box[:2], groups[:, :2]), np.minimum(box[2:4], groups[:, 2:4])
    inter = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:4] - box[:2])
    return bool(((inter >= SAME * area) & (groups[:, -1] == box[-1])).any())
