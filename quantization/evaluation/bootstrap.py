"""How much a mAP would move with other images of the same kind: a bootstrap over the images of the validation set. No torch.

Each resample draws as many images as there are, with replacement, and takes the AP of what was matched in them
(B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979). Two networks are compared
on the same resamples (paired): what is hard in an image is hard for both, so their difference moves far less than
either figure.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Iterator, Sequence

import numpy as np

from quantization.evaluation.matches import Matches

RESAMPLES = 400  # the standard deviation that they give is right to 3.5 %
SEED = 0  # of the images that are drawn: all networks get the same
DEVIATIONS = 1.96  # half of the width of a 95 % interval, in standard deviations
RECALLS = np.linspace(0.0, 1.0, 101)  # where pycocotools reads the precision
LEAST_KNOWN = 0.75  # share of the resamples that must have a figure
BLOCK = 500_000  # detections times resamples that a thread works on at once: a few of them fit into a cache
THREADS = 4  # numpy lets others run while it counts


@dataclass(frozen=True)
class Samples:
    """The figures of a network, 0 to 1, on the data set as it is (first) and on its resamples: R numbers each.

    Attributes:
        map: (R,) mAP@0.5:0.95, the mean over the classes that have boxes.
        map50: (R,) mAP@0.5, likewise.
        merged: (R,) AP@0.5:0.95 with the detections of all classes in one ranking, so that every box counts the same.
        classes: (R, classes) AP@0.5:0.95 of each class; NaN where it has no box.
    """

    map: np.ndarray
    map50: np.ndarray
    merged: np.ndarray
    classes: np.ndarray


def resample(matches: Matches, resamples: int = RESAMPLES, seed: int = SEED) -> Samples:
    """The figures of the data set and of its resamples, without a second evaluation.

    They are pycocotools' figures for a data set that has the drawn images as often as they were drawn. Where two
    detections of one image have the same score, it ranks copies of an image one after the other, this all at once.
    """
    images, classes = matches.boxes.shape
    # RandomState draws the same in every version of numpy: samples are compared across machines (saved_samples)
    draws = np.random.RandomState(seed).multinomial(images, np.full(images, 1 / images), resamples)
    if images == 1:
        draws[:] = 0  # drawn each time, it would give an interval of 0: there is none
    weights = np.concatenate((np.ones((1, images), np.int64), draws)).astype(np.int32)  # (R, images)
    boxes = weights @ matches.boxes.astype(np.int32)  # (R, classes)
    precision = np.full((len(weights), classes, len(matches.correct)), np.nan)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for label in np.flatnonzero(matches.boxes.any(0)):
            rows = np.flatnonzero(matches.label == label)
            precision[:, label] = _precisions(matches, rows, weights, boxes[:, label], pool)
        merged = _precisions(matches, np.arange(len(matches.image)), weights, boxes.sum(1), pool).mean(1)
    known = boxes > 0
    present = known.sum(1)
    means = [
        np.divide(
            np.where(known, part, 0).sum(1), present, out=np.full(len(weights), np.nan), where=present > 0
        )  # a resample without any box has no mAP
        for part in (precision.mean(2), precision[:, :, 0])
    ]
    return Samples(means[0], means[1], merged, precision.mean(2))


def _precisions(
    matches: Matches, rows: np.ndarray, weights: np.ndarray, boxes: np.ndarray, pool: Executor
) -> np.ndarray:
    """AP of some detections in one ranking: (R, T); NaN where there is no box.

    Args:
        matches: of all detections.
        rows: which of them, in the order that equal scores keep.
        weights: (R, images) int32, how often each image counts.
        boxes: (R,) how many boxes there are.
        pool: threads that share the resamples.
    """
    rows = rows[np.argsort(-matches.scores[rows], kind="mergesort")]
    image = matches.image[rows]
    correct, ignored = (np.take(flags, rows, axis=1) for flags in (matches.correct, matches.ignored))
    found = np.zeros((len(boxes), len(correct)))
    hits = np.flatnonzero(correct.any(0))  # precision is read at right detections alone
    read = slice(hits[-1] + 1 if len(hits) else 0)

    def measure(part: slice) -> None:
        drawn = np.take(weights[part], image[read], axis=1)  # (r, detections); much faster than [:, image]
        count = np.take(np.cumsum(drawn, axis=1, dtype=np.int32), hits, axis=1)
        for number, right in enumerate(correct[:, hits]):
            kept = np.flatnonzero(right)
            seen = np.take(count, kept, axis=1) - _before(drawn, ignored[number, read], hits[kept])
            true = np.cumsum(np.take(drawn, hits[kept], axis=1), axis=1, dtype=np.int32)
            found[part, number] = _area(true, seen, boxes[part])

    if len(hits):
        list(pool.map(measure, _parts(len(boxes), read.stop)))
    found[boxes == 0] = np.nan
    return found


def _parts(resamples: int, detections: int) -> Iterator[slice]:
    """All resamples, some at a time."""
    step = max(1, BLOCK // max(1, detections))
    return (slice(start, start + step) for start in range(0, resamples, step))


def _before(drawn: np.ndarray, ignored: np.ndarray, places: np.ndarray) -> Any:
    """How many ignored detections come before each place: (r, places), or 0."""
    which = np.flatnonzero(ignored)
    if not len(which):
        return 0
    counts = np.cumsum(drawn[:, which], axis=1)
    return np.insert(counts, 0, 0, axis=1)[:, np.searchsorted(which, places)]


def _area(true: np.ndarray, seen: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """AP, the mean precision at 101 recalls, of each resample: (r,).

    The precision at a recall is the best one there or further on. A detection is read for the recalls that it is the
    first to reach.

    Args:
        true: (r, P) right detections up to each one that is right at this threshold, itself included.
        seen: (r, P) detections up to it.
        boxes: (r,) how many boxes there are.
    """
    if not true.shape[1]:
        return np.zeros(len(true))
    precision = true / (seen + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = true / np.maximum(boxes, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    return (best * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)


def half_width(values: np.ndarray) -> Any:
    """Half of the width of the 95 % interval of figures whose first is that of the whole set; per column.

    NaN where too many resamples have no figure: a class whose boxes all lie in one image is missing in 37 % of them, in
    two images in 14 %, and one image does not tell what others would give.
    """
    values = np.asarray(values, np.float64)[1:]
    known = np.isfinite(values)
    count = known.sum(0)
    enough = (count > 1) & (known.mean(0) >= LEAST_KNOWN)
    mean = np.where(known, values, 0).sum(0) / np.maximum(count, 1)
    squares = np.where(known, (values - mean) ** 2, 0).sum(0)
    return np.where(enough, DEVIATIONS * np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def half_widths(samples: Samples, names: Sequence[str]) -> dict[str, Any]:
    """95 % intervals of all figures, as half of their widths; None where a figure has none.

    Args:
        samples: of a network, or the difference of two.
        names: of the classes.
    """
    one = {entry.name: plain(half_width(getattr(samples, entry.name))) for entry in fields(samples)[:3]}
    return {**one, "per_class": dict(zip(names, map(plain, half_width(samples.classes))))}


def difference(samples: Samples, reference: Samples, names: Sequence[str]) -> dict[str, Any]:
    """A network against another on the same images, in points (of 100) with the 95 % interval.

    Returns:
        "map", "map50", "merged": {"points": P, "plus_minus": W}, and "per_class": class name to such a pair. None where a
        class has no box.
    """
    apart = Samples(
        *(100 * (getattr(samples, entry.name) - getattr(reference, entry.name)) for entry in fields(Samples))
    )
    widths = half_widths(apart, names)
    found: dict[str, Any] = {
        name: {"points": plain(getattr(apart, name)[0]), "plus_minus": widths[name]}
        for name in ("map", "map50", "merged")
    }
    found["per_class"] = {
        name: {"points": plain(value), "plus_minus": widths["per_class"][name]}
        for name, value in zip(names, apart.classes[0])
    }
    return found


def plain(value: Any) -> float | None:
    """A number as JSON holds it: None for NaN."""
    return float(value) if np.isfinite(value) else None
