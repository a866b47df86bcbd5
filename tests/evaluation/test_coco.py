"""Data set, letterboxing, suppression and mAP, without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.data.labels import label_file, read_labels
from quantization.errors import UserError
from quantization.evaluation.coco import Evaluator, evaluate
from quantization.evaluation.detecting import Thresholds
from quantization.evaluation.detections import detections
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.nms import nms
from quantization.evaluation.onnx_predictor import OnnxPredictor
from shapes import draw_dataset
from support.perfect_detector import perfect_detector


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
    metrics, found = evaluate(Oracle(loader, 4), loader, GroundTruth(dataset, 4))
    assert metrics.images == 12 and len(found.image) == len(GroundTruth(dataset, 4).arrays().image)
    assert metrics.map > 0.99 and metrics.map50 > 0.99
    assert all(value > 0.98 or value == -1 for value in metrics.per_class.values())


def test_no_detection_gives_map_0(shapes: Path) -> None:
    dataset = open_dataset(str(shapes))
    loader = Loader(dataset.val, (128, 128), batch_size=5)
    metrics, _ = evaluate(lambda images: np.zeros((len(images), 3, 9), np.float32), loader, GroundTruth(dataset, 4))
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


def test_onnx_predictor_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        OnnxPredictor(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="no model for ONNX Runtime"):
        OnnxPredictor(str(tmp_path / "bad.onnx"))


def test_images_that_the_loader_repeats_are_looked_at_once(shapes: Path) -> None:
    dataset = open_dataset(str(shapes))
    truth = GroundTruth(dataset, 4)
    loader = Loader([*dataset.val, *dataset.val[:3]], (128, 128), batch_size=5)
    metrics, found = evaluate(Oracle(loader, 4), loader, truth)
    assert metrics.images == 12 and len(found.image) == len(truth.arrays().image)


def test_an_output_of_another_shape_is_refused(shapes: Path) -> None:
    dataset = open_dataset(str(shapes))
    loader = Loader(dataset.val, (128, 128), batch_size=5)
    evaluator = Evaluator(GroundTruth(dataset, 4), loader, Thresholds())
    with pytest.raises(UserError, match=r"has the shape \(5, 3, 10\); \(B, boxes, 9\) is expected"):
        evaluator(lambda images: np.zeros((len(images), 3, 10), np.float32), "x")
    for thresholds in ({"confidence": -0.1}, {"iou": 7}, {"iou": float("nan")}):
        with pytest.raises(UserError, match="out of range: give 0 to 1"):
            Thresholds(**thresholds)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{0: 'a', 1: 'b', 2: 'c'}", ["a", "b", "c"]),
        ("['a', 'b', 'c']", ["a", "b", "c"]),
        ("{0: 'a', 1: 'b'}", None),
        ("{0: 'a', 2: 'b', 3: 'c'}", None),
        ("a, b", None),
        (None, None),
    ],
)
def test_class_names_of_an_onnx(tmp_path: Path, text: str | None, expected: list[str] | None) -> None:
    file = perfect_detector(tmp_path / "x.onnx", (64, 64), 3)
    model = onnx.load(str(file))
    if text is not None:
        model.metadata_props.add(key="names", value=text)
    onnx.save(model, str(file))
    assert OnnxPredictor(str(file)).class_names == expected
