"""What models found in one image, and in all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import numpy as np

from quantization.viewing.differences import Match, disagreement

KINDS = ("kept", "moved", "lost", "new")


@dataclass(frozen=True)
class LabelCheck:
    """A model's boxes of one image against the labels.

    Attributes:
        missed: (M, 5) labelled boxes that it does not find: x1, y1, x2, y2, class.
        false: indices of its boxes that no label has.
    """

    missed: np.ndarray
    false: Sequence[int]

    @property
    def errors(self) -> int:
        """Missed and false boxes together."""
        return len(self.missed) + len(self.false)


@dataclass(frozen=True)
class ImageResult:
    """One image.

    Attributes:
        name: of the image.
        boxes: of each model (N, 6): x1, y1, x2, y2, score, class, above the confidence.
        matches: of two models; empty for one.
        checks: of each model; empty without labels.
    """

    name: str
    boxes: Sequence[np.ndarray]
    matches: Sequence[Match] = ()
    checks: Sequence[LabelCheck] = ()

    @property
    def disagreement(self) -> float:
        """See ``differences.disagreement``."""
        return disagreement(self.matches)

    @property
    def kinds(self) -> Counter[str]:
        """Objects of each of ``KINDS``."""
        return Counter(match.kind for match in self.matches)

    @property
    def errors(self) -> int:
        """Missed and false boxes of the last model: of the one that is on trial."""
        return self.checks[-1].errors if self.checks else 0


@dataclass(frozen=True)
class Overview:
    """All images, the worst first.

    Attributes:
        models: file names.
        names: of the classes.
        confidence: score from which a box counts.
        iou: threshold of non-maximum suppression.
        sizes: height and width of each model's input.
        results: sorted by ``rank``.
    """

    models: Sequence[str]
    names: Sequence[str]
    confidence: float
    iou: float
    sizes: Sequence[tuple[int, int]]
    results: Sequence[ImageResult] = field(default_factory=tuple)

    def ranked(self, results: Sequence[ImageResult]) -> Overview:
        """With these results: largest disagreement first, then most errors against labels, then as they came."""
        ordered = sorted(results, key=lambda result: (-result.disagreement, -result.errors))
        return Overview(self.models, self.names, self.confidence, self.iou, self.sizes, ordered)

    def class_name(self, number: float) -> str:
        """Name of a class."""
        return self.names[int(number)]

    def drawn_name(self, number: float) -> str:
        """A class name that OpenCV's font can show, which has ASCII alone; the page says which names stand behind."""
        name = self.class_name(number)
        return name if name.isascii() else f"class {int(number)}"

    @property
    def drawn_titles(self) -> list[str]:
        """The models' names as the pictures show them; see ``drawn_name``."""
        names = [Path(model).name for model in self.models]
        return [name if name.isascii() else f"model {number}" for number, name in enumerate(names, 1)]

    @property
    def headline(self) -> str:
        """What there is to say, in one line."""
        images = f"{len(self.results)} image" + ("s" if len(self.results) != 1 else "")
        if len(self.models) == 1:
            return f"{sum(len(result.boxes[0]) for result in self.results)} boxes in {images}"
        kinds = sum((result.kinds for result in self.results), Counter())
        counts = [sum(len(result.boxes[side]) for result in self.results) for side in (0, 1)]
        unchanged = sum(not (set(result.kinds) - {"kept"}) for result in self.results)
        faint = {
            kind: sum(m.kind == kind and m.iou > 0 for result in self.results for m in result.matches)
            for kind in ("lost", "new")
        }  # the other model has them too, below the confidence
        return (
            f"{counts[0]} boxes became {counts[1]} in {images}: {kinds['kept']} kept, {kinds['moved']} moved, "
            f"{kinds['lost']} lost ({faint['lost']} by falling below the threshold), {kinds['new']} new "
            f"({faint['new']} by rising above it); {unchanged} images unchanged"
        )

    @property
    def errors(self) -> list[tuple[str, int, int, int]]:
        """Of each model: its file, its boxes, missed labels, false boxes; empty without labels."""
        if not any(result.checks for result in self.results):
            return []
        return [
            (
                model,
                sum(len(result.boxes[side]) for result in self.results),
                sum(len(result.checks[side].missed) for result in self.results),
                sum(len(result.checks[side].false) for result in self.results),
            )
            for side, model in enumerate(self.models)
        ]
