"""Run models over all images, then draw them, the worst first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Optional, Sequence, Tuple

import numpy as np

from quantization.evaluation.ground_truth import GroundTruth
from quantization.files import atomic_write, write_json
from quantization.progress_bar import progress_bar
from quantization.viewing.detector import ImageDetector
from quantization.viewing.differences import FAINT, label_errors, match_models
from quantization.viewing.drawing import beside, draw_sides, jpeg
from quantization.viewing.page import picture_page
from quantization.viewing.results import ImageResult, LabelCheck, Overview
from quantization.viewing.sources import Source

Labels = Tuple[np.ndarray, np.ndarray]  # (M, 5) x1, y1, x2, y2, class; (M,) crowd
LabelsOf = Callable[[str], Optional[Labels]]
NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def no_labels(name: str) -> Labels | None:
    """Stands in for labels where there are none."""
    return None


def labels_of(truth: GroundTruth) -> LabelsOf:
    """The labels of each image of a data set."""
    found = truth.arrays()
    table = np.column_stack((found.boxes, found.labels))

    def labels(name: str) -> Labels | None:
        mine = found.image == truth.image_index(name)
        return table[mine], found.crowd[mine]

    return labels


def look(detectors: Sequence[ImageDetector], source: Source, labels: LabelsOf, asked: Overview) -> Overview:
    """Find the boxes of every image, and rank the images.

    Args:
        detectors: one or two models.
        source: the images.
        labels: of an image by its name.
        asked: models, class names and thresholds.
    """
    results = []
    for name, image in progress_bar(source, title="Look", unit="image"):
        floor = asked.confidence * (FAINT if len(detectors) > 1 else 1)
        found = [detector.find(image, floor, asked.iou) for detector in detectors]
        boxes = [rows[rows[:, 4] > asked.confidence] for rows in found]
        matches = match_models(found[0], found[1], asked.confidence) if len(found) > 1 else []
        checks = []
        truth = labels(name)
        if truth is not None:
            for rows in boxes:
                missed, false = label_errors(rows, *truth)
                checks.append(LabelCheck(truth[0][missed], false))
        results.append(ImageResult(name, boxes, matches, checks))
    return asked.ranked(results)


def write_pictures(summary: Overview, source: Source, out: Path, worst: int) -> Path:
    """Draw every image, numbered by rank, and the page.

    Args:
        summary: ranked.
        source: the same images as for ``look``.
        out: folder to write.
        worst: images on the page.

    Returns:
        The page.
    """
    ranks = {result.name: rank for rank, result in enumerate(summary.results)}
    shown: dict[int, list[bytes]] = {}
    files = {}
    for name, image in progress_bar(source, title="Draw", unit="image", total=len(ranks)):
        rank = ranks[name]
        sides = draw_sides(image, summary.results[rank], summary)
        files[rank] = f"pictures/{rank + 1:05d}-{NOT_IN_NAMES.sub('-', Path(name).stem)}.jpg"
        _write(out / files[rank], jpeg(beside(sides, summary.drawn_titles)))
        if rank < worst:
            shown[rank] = [jpeg(side) for side in sides]
    write_json(str(out / "predictions.json"), _record(summary))
    page = picture_page(summary, [shown[rank] for rank in sorted(shown)], [files[rank] for rank in sorted(files)])
    _write(out / "index.html", page.encode("utf-8"))
    return out / "index.html"


def _write(file: Path, content: bytes) -> None:
    with atomic_write(file) as temporary:
        Path(temporary).write_bytes(content)


def _record(summary: Overview) -> dict[str, object]:
    """All boxes, for other programs."""
    return {
        "models": list(summary.models),
        "names": list(summary.names),
        "confidence": summary.confidence,
        "iou": summary.iou,
        "box": "x1 y1 x2 y2 in pixels of the image, score, class",
        "images": [
            {
                "image": result.name,
                "disagreement": result.disagreement,
                "boxes": [np.round(rows, 4).tolist() for rows in result.boxes],
                **({"changes": dict(result.kinds)} if result.matches else {}),
                **({"missed": [len(c.missed) for c in result.checks]} if result.checks else {}),
                **({"false": [len(c.false) for c in result.checks]} if result.checks else {}),
            }
            for result in summary.results
        ],
    }
