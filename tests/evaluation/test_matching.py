"""Matching in parts, here and in processes, against pycocotools on all images at once: equal to the last bit."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantization.evaluation import match_processes
from quantization.evaluation.match_processes import MatchProcesses
from quantization.evaluation.matching import ImagePart, Pairs, joined_pairs, match_part, pairs_of, precisions

IMAGES, CLASSES = 30, 5


@pytest.fixture(scope="module")
def scene() -> ImagePart:
    """Boxes, crowds among them, detections near them and elsewhere with equal scores, 150 in one image; image 7 is empty.

    Class 4 has no box, and no image from 20 on has one.
    """
    generator = np.random.default_rng(5)
    true_image = np.sort(generator.integers(0, 20, 120))
    true_image = true_image[true_image != 7]
    low = generator.random((len(true_image), 2)) * 200
    true_boxes = np.concatenate((low, low + 10 + 60 * generator.random((len(true_image), 2))), 1)
    true_labels = generator.integers(0, CLASSES - 1, len(true_image))
    source = generator.integers(0, len(true_image), 700)
    image = np.where(generator.random(700) < 0.7, true_image[source], generator.integers(0, IMAGES, 700))
    image[:150] = 3
    kept = image != 7
    labels = np.where(generator.random(700) < 0.7, true_labels[source], generator.integers(0, CLASSES, 700))
    labels[:150] = 1
    boxes = true_boxes[source] + generator.normal(0, 4, (700, 4))
    scores = generator.integers(1, 40, 700) / 40
    crowd = generator.random(len(true_image)) < 0.1
    found = (part[kept] for part in (image, boxes, scores, labels))
    return ImagePart(0, IMAGES, CLASSES, true_image, true_boxes, true_labels, crowd, *found)


def in_parts(scene: ImagePart, sizes: list[int]) -> list[ImagePart]:
    parts, first = [], 0
    for size in sizes:
        own, rows = ((first <= numbers) & (numbers < first + size) for numbers in (scene.true_image, scene.image))
        true = (part[own] for part in (scene.true_image, scene.true_boxes, scene.true_labels, scene.crowd))
        found = (part[rows] for part in (scene.image, scene.boxes, scene.scores, scene.labels))
        parts.append(ImagePart(first, size, CLASSES, *true, *found))
        first += size
    assert first == IMAGES
    return parts


@pytest.fixture(scope="module")
def plain(scene: ImagePart) -> Any:
    """A COCOeval over everything, as pycocotools' users write it."""
    true_sides = scene.true_boxes[:, 2:] - scene.true_boxes[:, :2]
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number + 1} for number in range(IMAGES)],
        "categories": [{"id": number} for number in range(CLASSES)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": int(image) + 1,
                "category_id": int(scene.true_labels[index]),
                "bbox": [*scene.true_boxes[index, :2].tolist(), *true_sides[index].tolist()],
                "area": float(np.prod(true_sides[index])),
                "iscrowd": int(scene.crowd[index]),
            }
            for index, image in enumerate(scene.true_image)
        ],
    }
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(np.column_stack((scene.image + 1, scene.boxes[:, :2], sides, scene.scores, scene.labels)))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def assert_same(found: Pairs, expected: Pairs) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name).dtype == value.dtype
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize("sizes", [[30], [8, 20, 2], [1] * 30])
def test_parts_put_together_are_pycocotools_own_results(scene: ImagePart, plain: Any, sizes: list[int]) -> None:
    found = joined_pairs([match_part(part) for part in in_parts(scene, sizes)])
    assert found.ignored.any() and found.detections.max() == 100  # crowds, and the limit of an image
    everything = [entry for entry in plain.evalImgs if entry is not None and entry["aRng"] == [0, 1e10]]
    plain_pairs = pairs_of(type("", (), {"evalImgs": everything, "params": plain.params}))
    assert_same(found, plain_pairs)
    expected = plain.eval["precision"][:, :, :, 0, -1]
    assert (expected[:, :, 4] == -1).all() and 0.1 < expected[:, :, :4].mean() < 0.9
    np.testing.assert_array_equal(precisions(found, IMAGES, CLASSES), expected)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> MatchProcesses:
    """Two, whatever the machine."""
    monkeypatch.setattr(match_processes, "_process_count", lambda images, shares: 2)
    return MatchProcesses(IMAGES)


def test_processes_match_as_this_one_does_and_end(scene: ImagePart, processes: MatchProcesses) -> None:
    parts = in_parts(scene, [8, 20, 2])
    with processes:
        started = list(processes._processes)
        found = processes.match(parts)
        assert len(started) == 2 and all(process.poll() is None for process in started)
    assert all(process.poll() is not None for process in started)
    for one, part in zip(found, parts):
        assert_same(one, match_part(part))


def test_another_copy_in_the_current_folder_is_not_run(
    scene: ImagePart, processes: MatchProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quantization").mkdir()
    (tmp_path / "quantization" / "__init__.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    with processes:
        processes.match(in_parts(scene, [8, 22]))
        assert all(process.poll() is None for process in processes._processes)


def test_work_of_a_process_that_has_gone_is_done_here(
    scene: ImagePart, processes: MatchProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    parts = in_parts(scene, [8, 20, 2])
    with processes, caplog.at_level(logging.WARNING):
        for process in processes._processes:
            process.kill()
            process.wait()
        found = processes.match(parts)
    assert "a process for the evaluation has ended" in caplog.text
    assert_same(joined_pairs(found), joined_pairs([match_part(part) for part in parts]))


def test_a_process_ends_with_its_input(processes: MatchProcesses) -> None:
    with processes:
        process = processes._processes[0]
        assert process.stdin is not None
        process.stdin.close()  # as when the program is killed
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    "cores, images, shares, expected",
    [
        (16, 2000, 1, 5),
        (64, 2000, 1, 6),
        (64, 499, 1, 0),
        (2, 2000, 1, 0),
        (5, 2000, 1, 0),
        (6, 500, 1, 2),
        (16, 2000, 8, 0),
    ],
)
def test_small_sets_and_small_machines_start_none(
    monkeypatch: pytest.MonkeyPatch, cores: int, images: int, shares: int, expected: int
) -> None:
    monkeypatch.setattr(match_processes.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert match_processes._process_count(images, shares) == expected
