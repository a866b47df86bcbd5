"""Detections where the outputs lie, against those in numpy, on a CPU: equal to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.errors import UserError
from quantization.evaluation.detecting import Detector, Thresholds, detect
from quantization.evaluation.detections import detections
from quantization.evaluation.ground_truth import GroundTruth
from quantization.upstream import suppression
from quantization.upstream.predictor import DeviceDetector, TorchPredictor, torch_predictor
from quantization.upstream.suppression import device_detections
from shapes import draw_dataset

CLASSES = 3


def outputs(seed: int, images: int, boxes: int, classes: int = CLASSES) -> torch.Tensor:
    """(images, boxes, 5 + classes): crowds of similar boxes, with many equal scores."""
    r = np.random.default_rng(seed)
    centres = r.uniform(0, 300, (images, 12, 2))[:, r.integers(0, 12, boxes)] + r.normal(0, 6, (images, boxes, 2))
    sides = r.uniform(20, 40, (images, boxes, 2))
    scores = np.round(r.random((images, boxes, 1 + classes)) ** 2, 1)
    scores[0, :, 0] = 0  # an image without detections
    return torch.from_numpy(np.concatenate((centres, sides, scores), 2).astype(np.float32))


def check(output: torch.Tensor, thresholds: Thresholds, limit: int) -> int:
    """Compare; the number of detections."""
    found = device_detections(output, thresholds, limit)
    assert len(found) == len(output)
    for image, boxes in zip(output.numpy(), found):
        with np.errstate(invalid="ignore"):  # infinite boxes
            expected = detections(
                image, thresholds.confidence, thresholds.iou, limit, objectness_only=thresholds.objectness_only
            )
        assert boxes.dtype == np.float64
        np.testing.assert_array_equal(boxes, expected)
    return sum(map(len, found))


@pytest.mark.parametrize("iou", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("block", [7, 64, suppression.BLOCK])
def test_detections_are_those_of_numpy(iou: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "BLOCK", block)
    assert check(outputs(0, 4, 150), Thresholds(0.05, iou), 300) > 36
    assert check(outputs(1, 4, 150), Thresholds(0.05, iou), 20) == 60


def test_one_class_by_objectness_alone() -> None:
    output = outputs(2, 3, 80, 1)
    check(output, Thresholds(0.1, 0.5, objectness_only=True), 300)
    by_product = device_detections(output, Thresholds(0.1, 0.5))
    assert by_product[1][0, 4] != device_detections(output, Thresholds(0.1, 0.5, objectness_only=True))[1][0, 4]


def test_too_many_candidates_and_damaged_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    output = outputs(3, 3, 300)
    output[1, :20, :4], output[1, 20:30, 4] = float("inf"), float("nan")
    output[2, :20, 2:4] = 0
    check(output, Thresholds(0.01, 0.6), 300)
    monkeypatch.setattr(suppression, "MAX_CANDIDATES", 50)
    monkeypatch.setattr("quantization.evaluation.detections.MAX_CANDIDATES", 50)
    check(output, Thresholds(0.01, 0.6), 300)
    assert device_detections(output[:0], Thresholds()) == []


def test_a_full_image_takes_no_more_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one image still looks for boxes, the thousands that another one could keep take no memory."""
    monkeypatch.setattr(suppression, "BLOCK", 32)
    sizes = []
    original = suppression._overlap

    def overlap(first: torch.Tensor, second: torch.Tensor, iou_threshold: float) -> torch.Tensor:
        sizes.append(first.shape[1])
        return original(first, second, iou_threshold)

    monkeypatch.setattr(suppression, "_overlap", overlap)
    output = outputs(4, 2, 600, 1)
    output[0, :, 0], output[0, :, 2:4] = torch.arange(600.0) * 9, 8  # apart from each other
    output[1, :, :2], output[1, :, 2:4] = 50, 30  # all one
    output[..., 4:] = 1
    assert check(output, Thresholds(0.1, 0.5), 20) == 21
    assert max(sizes) <= 20 + 32


class Net(nn.Module):
    """One box per 8 x 8 pixels, and three numbers behind each as a segmentation network has."""

    def __init__(self, numbers: int = 5 + CLASSES) -> None:
        super().__init__()
        self.nc, self.yaml = CLASSES, {"nc": CLASSES}
        self.conv = nn.Conv2d(3, numbers + 3, 8, 8)
        torch.manual_seed(0)
        nn.init.normal_(self.conv.weight)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        maps = self.conv(images)
        rows, columns = (torch.arange(side, dtype=torch.float32) * 8 for side in maps.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1]).flatten(1).T  # (cells, 2) x, y
        numbers = maps.flatten(2).transpose(1, 2).sigmoid()
        return (torch.cat((grid + 8 * numbers[..., :2], 20 + 20 * numbers[..., 2:4], numbers[..., 4:]), 2),)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train=1, val=7, size=96, classes=CLASSES, objects=2, seed=3)
    return folder


def test_evaluation_finds_the_same_either_way(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes to the device and boxes there, against floats made by numpy and boxes by numpy."""
    monkeypatch.setattr("quantization.upstream.predictor.class_count", lambda model: model.nc)
    dataset = open_dataset(str(shapes))
    truth = GroundTruth(dataset, CLASSES)
    loader = Loader(dataset.val, (96, 96), batch_size=3, workers=2)
    net = Net().eval()
    assert type(torch_predictor(net)) is TorchPredictor and not isinstance(TorchPredictor(net), Detector)
    host = detect(TorchPredictor(net), loader, truth, Thresholds(0.2, 0.6))
    device = detect(DeviceDetector(net), loader, truth, Thresholds(0.2, 0.6))
    assert len(host.image) > 50 and len(set(host.labels)) > 1
    for name, values in vars(host).items():
        np.testing.assert_array_equal(values, getattr(device, name), err_msg=name)
    expected = detections(net_output(net, loader), 0.2, 0.6)
    np.testing.assert_array_equal(host.scores[: len(expected)], expected[:, 4])


def net_output(net: Net, loader: Loader) -> np.ndarray:
    """Of the first image."""
    batch = next(iter(loader))
    with torch.no_grad():
        output: torch.Tensor = net(torch.from_numpy(batch.images.astype(np.float32) / 255))[0][0, :, : 5 + CLASSES]
    return output.numpy()


def test_a_failure_in_the_thread_reaches_the_caller(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantization.upstream.predictor.class_count", lambda model: model.nc)

    class Damaged(DeviceDetector):
        def detect(self, output: torch.Tensor, thresholds: Thresholds) -> list[np.ndarray]:
            raise UserError("out of memory")

    dataset = open_dataset(str(shapes))
    loader = Loader(dataset.val, (96, 96), batch_size=3, workers=1)
    with pytest.raises(UserError, match="out of memory"):
        detect(Damaged(Net().eval()), loader, GroundTruth(dataset, CLASSES), Thresholds())
