"""Suppression and mAP, without a network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.data.labels import label_file, read_labels
from quantization.errors import UserError
from quantization.evaluation.coco import GroundTruth, evaluate
from quantization.evaluation.detections import detections, nms
from quantization.evaluation.onnx_predictor import OnnxPredictor
from shapes import draw_dataset


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train=6, val=12, size=160, classes=4, objects=4, seed=3)
    return folder


class Oracle:
    """A predictor that knows the answers: gives each label as a box, in the network's pixels.

    It looks an image up by its place in the loader's order.
    """

    def __init__(self, loader: Loader, classes: int) -> None:
        self.batches, self.classes = iter(list(loader)), classes

    def __call__(self, images: np.ndarray) -> np.ndarray:
        batch = next(self.batches)
        np.testing.assert_array_equal(images, batch.images.astype(np.float32) / 255)
        output = np.zeros((len(images), 50, 5 + self.classes), np.float32)
        for index, file in enumerate(batch.files):
            height, width = batch.shapes[index]
            for row, (label, x, y, w, h) in enumerate(read_labels(label_file(file), self.classes)):
                box = np.array([x * width, y * height, w * width, h * height]) * batch.gains[index]
                box[:2] += batch.pads[index]
                output[index, row, :4], output[index, row, 4], output[index, row, 5 + int(label)] = box, 1, 0.9
        return output


@pytest.mark.parametrize("rect_stride", [None, 32])
@pytest.mark.parametrize("annotations", [True, False])
def test_right_answers_give_map_1(shapes: Path, rect_stride: int | None, annotations: bool) -> None:
    dataset = open_dataset(str(shapes))
    if not annotations:
        dataset = replace(dataset, annotations=None, names=[])
    loader = Loader(dataset.val, (128, 128), batch_size=5, workers=2, rect_stride=rect_stride)
    metrics = evaluate(Oracle(loader, 4), loader, GroundTruth(dataset, 4))
    assert metrics.images == 12
    assert metrics.map > 0.99 and metrics.map50 > 0.99
    assert all(value > 0.98 or value == -1 for value in metrics.per_class.values())


def test_no_detection_gives_map_0(shapes: Path) -> None:
    dataset = open_dataset(str(shapes))
    loader = Loader(dataset.val, (128, 128), batch_size=5)
    metrics = evaluate(lambda images: np.zeros((len(images), 3, 9), np.float32), loader, GroundTruth(dataset, 4))
    assert (metrics.map, metrics.map50) == (0, 0)


def brute_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list:
    kept: list = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for other in kept:
            w = min(boxes[index][2], boxes[other][2]) - max(boxes[index][0], boxes[other][0])
            h = min(boxes[index][3], boxes[other][3]) - max(boxes[index][1], boxes[other][1])
            overlap = max(0, w) * max(0, h)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[index], boxes[other])]
            if overlap / (sum(areas) - overlap) > threshold:
                break
        else:
            kept.append(index)
    return kept


def test_nms_equals_brute_force() -> None:
    generator = np.random.default_rng(0)
    corner = generator.random((300, 2)) * 60
    boxes = np.concatenate((corner, corner + 5 + 20 * generator.random((300, 2))), 1)
    scores = generator.random(300)
    expected = brute_nms(boxes, scores, 0.5)
    assert nms(boxes, scores, 0.5).tolist() == expected
    assert nms(boxes, scores, 0.5, max_kept=7).tolist() == expected[:7]
    assert nms(boxes[:0], scores[:0], 0.5).size == 0


def test_detections_are_multi_label_and_per_class() -> None:
    output = np.array([[50, 50, 20, 20, 0.9, 0.8, 0.7], [51, 50, 20, 20, 0.8, 0.9, 0.0], [9, 9, 4, 4, 0.0005, 1, 1]])
    found = detections(output, 0.001, 0.5)
    # the first box stands for both classes; the second is suppressed for class 0 (0.72 and 0.72 tie: the first wins)
    np.testing.assert_allclose(found, [[40, 40, 60, 60, 0.72, 0], [40, 40, 60, 60, 0.63, 1]])
    one = detections(output[:, :6], 0.001, 0.5, objectness_only=True)
    assert one[0, 4] == 0.9


def test_truth_must_fit_model_and_images(shapes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data=str(shapes / "data.yaml"))
    assert dataset.annotations == shapes / "annotations" / "instances_val2017.json" and len(dataset.names) == 4
    with pytest.raises(UserError, match="has 4 classes, the model has 80"):
        GroundTruth(dataset, 80)
    dataset = replace(dataset, names=[])
    with pytest.raises(UserError, match="has 4 classes, the model has 80"):
        GroundTruth(dataset, 80)
    content = json.loads(dataset.annotations.read_text())
    content["images"] = content["images"][1:]
    less = tmp_path / "less.json"
    dataset = replace(dataset, annotations=less)
    less.write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not list"):
        GroundTruth(dataset, 4)
    for text, message in (("[]", "lacks images"), ("{", "no JSON")):
        less.write_text(text)
        with pytest.raises(UserError, match=message):
            GroundTruth(dataset, 4)


def test_onnx_predictor_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        OnnxPredictor(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="no model for ONNX Runtime"):
        OnnxPredictor(str(tmp_path / "bad.onnx"))
