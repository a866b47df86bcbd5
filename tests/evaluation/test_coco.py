"""Data set, letterboxing, suppression and mAP, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from quantization.data.images import (
    Loader,
    image_files,
    image_shape,
    letterbox,
    load_batches,
    open_dataset,
    rect_shapes,
)
from quantization.data.labels import label_file, read_labels
from quantization.errors import UserError
from quantization.evaluation.coco import GroundTruth, evaluate
from quantization.evaluation.detections import detections, to_image
from quantization.evaluation.nms import nms
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
        dataset.annotations, dataset.names = None, []
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


def test_letterbox_and_back() -> None:
    image = np.zeros((90, 200, 3), np.uint8)
    image[20:60, 40:120] = 255
    boxed, gain, pad = letterbox(image, (160, 160))
    assert boxed.shape == (160, 160, 3) and (boxed[:40] == 114).all() and gain == 0.8 and pad == (0.0, 44.0)
    rows, columns = np.nonzero(boxed[:, :, 0] > 180)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    np.testing.assert_allclose(to_image(box, gain, pad, (90, 200)), [[40, 20, 120, 60]], atol=1.5)
    assert letterbox(image, (160, 160))[0].dtype == np.uint8
    assert letterbox(image, (96, 160))[0].shape == (96, 160, 3)


def test_rect_shapes_hold_every_image() -> None:
    generator = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in generator.integers(50, 400, (23, 2))]
    order, sizes = rect_shapes(shapes, 4, 320, 32)
    assert sorted(order) == list(range(23)) and len(sizes) == 6
    for number, index in enumerate(order):
        height, width = sizes[number // 4]
        ratio = 320 / max(shapes[index])
        assert int(shapes[index][0] * ratio) <= height and int(shapes[index][1] * ratio) <= width
        assert height % 32 == 0 and width % 32 == 0


def test_loader_is_reproducible_and_complete(shapes: Path) -> None:
    files = open_dataset(str(shapes)).val
    loader = Loader(files, (64, 64), batch_size=5, workers=3)
    assert [file for batch in loader for file in batch.files] == files and len(loader) == 3
    first = [batch.files for batch in Loader(files, (64, 64), 5, shuffle_seed=1)]
    again = Loader(files, (64, 64), 5, shuffle_seed=1)
    assert [batch.files for batch in again] == first
    second = [batch.files for batch in again]
    assert second != first and sorted(file for part in second for file in part) == sorted(files)
    floats = np.concatenate(list(load_batches(files, (64, 64), 5)))
    assert floats.dtype == np.float32 and floats.shape == (12, 3, 64, 64) and 0.9 < floats.max() <= 1


def test_image_shape_follows_exif_rotation(tmp_path: Path) -> None:
    from PIL import Image

    file = str(tmp_path / "turned.jpg")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((20, 50, 3), np.uint8)).save(file, exif=exif)
    assert image_shape(file) == cv2.imread(file).shape[:2] == (50, 20)


def test_label_files_and_polygons(tmp_path: Path) -> None:
    assert label_file("/a/images/b/images/c.jpg") == Path("/a/images/b/labels/c.txt")
    file = tmp_path / "x.txt"
    file.write_text("1 0.1 0.2 0.5 0.2 0.5 0.6\n\n0 0.5 0.5 0.2 0.2\n")
    np.testing.assert_allclose(read_labels(file, 2), [[1, 0.3, 0.4, 0.4, 0.4], [0, 0.5, 0.5, 0.2, 0.2]])
    assert read_labels(tmp_path / "none.txt", 2).shape == (0, 5)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0 0.5 1.5 0.1 0.1", "box is out of range"),
        ("0 0.5 0.5 0.1", "4 numbers"),
        ("a b c d e", "no YOLO label"),
    ],
)
def test_bad_labels_name_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text("0 0.5 0.5 0.1 0.1\n" + line)
    with pytest.raises(UserError, match=complaint) as error:
        read_labels(file, 2)
    assert f"{file}, line 2" in str(error.value)


def test_bad_data_sets(shapes: Path, tmp_path: Path) -> None:
    def refused(message: str, **arguments: str) -> None:
        with pytest.raises(UserError, match=message):
            open_dataset(**arguments)

    refused("either --cocodir")
    refused("either --cocodir", cocodir=str(shapes), data="x")
    refused("is no folder", cocodir=str(tmp_path / "none"))
    refused("neither train2017.txt", cocodir=str(tmp_path))
    refused("does not exist", data=str(tmp_path / "none.yaml"))
    (tmp_path / "a.yaml").write_text("{")
    refused("is no YAML", data=str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_text("train: x")
    refused("lacks", data=str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_text(f"train: {shapes}/train2017.txt\nval: nowhere\nnc: 1\nnames: [a]")
    refused("val: nowhere", data=str(tmp_path / "a.yaml"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "a.yaml").write_text(f"train: {shapes}/train2017.txt\nval: empty.txt")
    refused("lists no images", data=str(tmp_path / "a.yaml"))
    (tmp_path / "empty.txt").write_text("gone.jpg")
    refused("gone.jpg, which does not exist", data=str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_text(f"train: {shapes}/train2017.txt\nval: {shapes}/val2017.txt\nnc: 3\nnames: [a]")
    refused("says nc: 3 but lists 1", data=str(tmp_path / "a.yaml"))
    with pytest.raises(UserError, match="no readable image"):
        (tmp_path / "bad.jpg").write_text("no image")
        list(Loader([str(tmp_path / "bad.jpg")], (64, 64)))


def test_truth_must_fit_model_and_images(shapes: Path, tmp_path: Path) -> None:
    dataset = open_dataset(data=str(shapes / "data.yaml"))
    assert dataset.annotations == shapes / "annotations" / "instances_val2017.json" and len(dataset.names) == 4
    with pytest.raises(UserError, match="has 4 classes, the model has 80"):
        GroundTruth(dataset, 80)
    dataset.names = []
    with pytest.raises(UserError, match="has 4 classes, the model has 80"):
        GroundTruth(dataset, 80)
    content = json.loads(dataset.annotations.read_text())
    content["images"] = content["images"][1:]
    dataset.annotations = tmp_path / "less.json"
    dataset.annotations.write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not list"):
        GroundTruth(dataset, 4)
    for text, message in (("[]", "lacks images"), ("{", "no JSON")):
        dataset.annotations.write_text(text)
        with pytest.raises(UserError, match=message):
            GroundTruth(dataset, 4)


def test_listed_images_relative_to_the_list(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.jpg"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "list.txt").write_text("./images/a.jpg\n")
    assert image_files(tmp_path / "list.txt") == [str(tmp_path / "images" / "a.jpg")]
    assert image_files(tmp_path) == [str(tmp_path / "images" / "a.jpg")]


def test_onnx_predictor_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        OnnxPredictor(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="no model for ONNX Runtime"):
        OnnxPredictor(str(tmp_path / "bad.onnx"))
