"""The bootstrap against pycocotools on every resample, with the images that were drawn repeatedly as copies."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantization.evaluation import bootstrap
from quantization.evaluation.bootstrap import Samples, difference, half_width, half_widths, resample
from quantization.evaluation.ground_truth import TrueBoxes
from quantization.evaluation.matches import Matches, box_counts, matches_of, no_matches
from quantization.evaluation.matching import pairs_of

IMAGES, CLASSES, RESAMPLES = 9, 4, 12


def scene(seed: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Annotations, and detections as rows of image id, x, y, w, h, score, class; images 8 and 9 are empty, class 3 too.

    Class 2 has one box, and one annotation of class 0 is a crowd.
    """
    generator = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    rows = []
    for image in range(1, IMAGES - 1):
        for label in [0, 0, 1, 1, 0][: 2 + image % 4] + ([2] if image == 4 else []):
            box = [*(generator.random(2) * 60), *(10 + 30 * generator.random(2))]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                }
            )
            annotations[-1]["iscrowd"] = int(len(annotations) == 3)
            for _ in range(generator.integers(0, 4)):
                moved = np.array(box) + generator.normal(0, 3, 4)
                other = generator.choice([label, label, label, 3, 1])
                rows.append([image, *moved, generator.random(), other])
    rows += [[IMAGES, *(generator.random(2) * 60), 20, 20, generator.random(), label] for label in (0, 1, 2, 3)]
    table = np.array(rows)
    for image in range(1, IMAGES + 1):  # scores that other images have too, but no other detection of this one
        mine = table[:, 0] == image
        table[mine, 5] = (1 + generator.permutation(mine.sum())) / 20
    return annotations, table


def coco_evaluation(images: int, annotations: list[dict[str, Any]], rows: np.ndarray, classes: int = CLASSES) -> Any:
    """A COCOeval over all areas that has run."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(1, images + 1)],
        "categories": [{"id": number} for number in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def copied(
    draw: np.ndarray, annotations: list[dict[str, Any]], rows: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """A data set that holds image i + 1 ``draw[i]`` times."""
    new_annotations: list[dict[str, Any]] = []
    new_rows = [np.zeros((0, 7))]
    for number, image in enumerate(np.repeat(np.arange(1, len(draw) + 1), draw), 1):
        for annotation in annotations:
            if annotation["image_id"] == image:
                new_annotations.append({**annotation, "id": len(new_annotations) + 1, "image_id": number})
        mine = rows[rows[:, 0] == image].copy()
        mine[:, 0] = number
        new_rows.append(mine)
    return new_annotations, np.concatenate(new_rows)


def one_ranking(images: int, annotations: list[dict[str, Any]], rows: np.ndarray) -> tuple[int, Any, np.ndarray]:
    """All classes as one: each class of each image becomes an image of its own, so that only equal classes match."""
    moved = [
        {**entry, "image_id": entry["category_id"] * images + entry["image_id"], "category_id": 0}
        for entry in annotations
    ]
    rows = rows.copy()
    rows[:, 0] += rows[:, 6] * images
    rows[:, 6] = 0
    return images * CLASSES, moved, rows


def figures(evaluation: Any) -> tuple[float, float, list[float]]:
    """MAP, mAP at 0.5 and AP of each class as pycocotools has them; NaN for none."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    means = [part[part > -1].mean() if (part > -1).any() else np.nan for part in (precision, precision[0])]
    return means[0], means[1], [part.mean() if (part > -1).any() else np.nan for part in np.moveaxis(precision, 2, 0)]


def sampled(seed: int, count: int = RESAMPLES) -> Samples:
    annotations, rows = scene(seed)
    boxes = np.zeros((IMAGES, CLASSES), np.int64)
    for entry in annotations:
        boxes[entry["image_id"] - 1, entry["category_id"]] += not entry["iscrowd"]
    return resample(matches_of(pairs_of(coco_evaluation(IMAGES, annotations, rows)), boxes), count)


@pytest.mark.parametrize("seed, block", [(0, bootstrap.BLOCK), (1, 50)])
def test_every_resample_has_the_figures_of_pycocotools(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", block)  # 50: two resamples at a time
    annotations, rows = scene(seed)
    found = sampled(seed)
    draws = np.random.RandomState(bootstrap.SEED).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), RESAMPLES)
    for number, draw in enumerate([np.ones(IMAGES, np.int64), *draws]):
        resampled = copied(draw, annotations, rows)
        expected = figures(coco_evaluation(IMAGES, *resampled))
        merged = figures(coco_evaluation(*one_ranking(IMAGES, *resampled), classes=1))[0]
        actual = [found.map[number], found.map50[number], found.merged[number], *found.classes[number]]
        np.testing.assert_allclose(actual, [*expected[:2], merged, *expected[2]], rtol=0, atol=1e-9)
    assert np.isnan(found.classes[:, 3]).all() and np.isnan(found.classes[:, 2]).any()
    assert not np.isnan(found.classes[0, 2]) and 0.1 < found.map[0] < 0.9


def test_a_difference_is_paired() -> None:
    one, other = sampled(0), sampled(0)
    same = difference(one, other, ["a", "b", "c", "d"])
    assert same["map"] == same["merged"] == {"points": 0, "plus_minus": 0}
    assert same["per_class"]["d"] == {"points": None, "plus_minus": None}
    worse = Samples(one.map - 0.01, one.map50, one.merged - 0.02 * np.arange(RESAMPLES + 1), one.classes)
    found = difference(worse, one, ["a", "b", "c", "d"])
    assert found["map"]["points"] == pytest.approx(-1) and found["map"]["plus_minus"] == pytest.approx(0, abs=1e-9)
    spread = 1.96 * np.std(2.0 * np.arange(1, RESAMPLES + 1), ddof=1)
    assert found["merged"] == {"points": 0, "plus_minus": pytest.approx(spread)}


def test_an_interval_leaves_out_what_has_no_figure() -> None:
    values = np.array([[5.0, 5, 5], [1, np.nan, np.nan], [2, 4, np.nan], [6, 8, 2], [3, 3, 9]])
    found = half_width(values)
    expected = [1.96 * np.std(part, ddof=1) for part in ([1, 2, 6, 3], [4, 8, 3])]
    np.testing.assert_allclose(found[:2], expected)
    assert np.isnan(found[2])


def test_files_of_other_versions_of_numpy_are_comparable() -> None:
    """The first draws, as they were when this was written."""
    boxes = np.eye(5, dtype=np.int64)
    found = resample(no_matches(boxes), 4)
    assert np.isnan(found.classes[1:]).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 1, 0, 0, 1],
        [0, 0, 1, 1, 0],
    ]


def test_a_class_in_one_image_has_no_interval() -> None:
    boxes = np.zeros((40, 2), np.int64)
    boxes[3, 0], boxes[3:5, 1] = 5, 1
    image, label = np.array([3, 3, 4]), np.array([0, 1, 1])
    correct = np.array([[True, True, False]])
    samples = resample(Matches(image, label, np.array([0.9, 0.8, 0.7]), correct, np.zeros_like(correct), boxes))
    widths = half_widths(samples, ["one", "two"])["per_class"]
    assert widths["one"] is None and widths["two"] > 0


def test_one_image_has_no_interval() -> None:
    correct = np.array([[True]])
    found = Matches(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1), correct, ~correct, np.array([[2]]))
    samples = resample(found)
    assert samples.map[0] == samples.merged[0] == pytest.approx(51 / 101)  # recalls up to one half
    assert half_widths(samples, ["one"]) == {"map": None, "map50": None, "merged": None, "per_class": {"one": None}}


def test_nothing_found_is_zero_everywhere() -> None:
    boxes = np.array([[1, 0], [2, 0], [0, 0]])
    found = resample(no_matches(boxes), 20)
    assert set(found.map[np.isfinite(found.map)]) == {0.0} and found.merged[0] == 0
    assert np.isnan(found.classes[:, 1]).all()


def test_boxes_are_counted_without_crowds() -> None:
    labels, crowd = np.array([1, 1, 0, 1]), np.array([False, False, False, True])
    truth = TrueBoxes(np.array([0, 0, 2, 2]), np.zeros((4, 4)), labels, crowd)
    assert box_counts(truth, 3, 2).tolist() == [[0, 2], [0, 0], [1, 0]]


def test_the_interval_covers_what_other_images_give() -> None:
    """Many sets of images of one kind: their mAP spreads as the interval of a single set says."""
    generator = np.random.default_rng(3)
    images, per_image = 60, 3
    values, widths = [], []
    for _ in range(60):
        skill = np.repeat(generator.beta(2, 2, images), per_image)  # some images are hard
        right = generator.random((1, images * per_image)) < skill
        matches = no_matches(np.full((images, 1), per_image), 1)
        rows = np.arange(images * per_image)
        found = resample(
            Matches(
                rows // per_image,
                np.zeros_like(rows),
                generator.random(len(rows)),
                right,
                np.zeros_like(right),
                matches.boxes,
            ),
            100,
        )
        values.append(found.map[0])
        widths.append(float(half_width(found.map)))
    covered = np.mean(np.abs(np.array(values) - np.mean(values)) < widths)
    assert 0.85 < covered <= 1 and 1.96 * np.std(values) == pytest.approx(np.mean(widths), rel=0.25)
