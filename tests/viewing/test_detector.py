"""Detectors whose files tell less than all, and names that do not agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantization.errors import UserError
from quantization.evaluation.engine_predictor import EnginePredictor
from quantization.evaluation.network import Network
from quantization.viewing.detector import ImageDetector, open_runtime, shared_names
from quantization.viewing.options import PredictCommand


class FakeEngine:
    """Finds one object of the last class in the middle of the letterboxed image, 20 x 10 pixels; classes as given."""

    size = (64, 96)

    def __init__(self, classes: int | None) -> None:
        self.classes = classes

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.shape == (1, 3, *self.size) and images.dtype == np.float32 and images.max() <= 1
        return np.array([[[48, 32, 20, 10, 0.9, 0.1, 0.8]]], np.float32)


def opened(monkeypatch: pytest.MonkeyPatch, classes: int | None, given: int | None) -> ImageDetector:
    asked: list[Any] = []

    def load(file: str, output_format: str) -> FakeEngine:
        asked.append((file, output_format))
        return FakeEngine(classes)

    monkeypatch.setattr(EnginePredictor, "load", load)
    found = open_runtime(PredictCommand("net.plan", ("a.png",)), "net.plan", given)
    assert asked == [("net.plan", "auto")]
    return found


@pytest.mark.parametrize(("classes", "given"), [(2, None), (None, 2)])
def test_an_engine_sees_letterboxed_images_and_boxes_come_back_in_the_images_pixels(
    monkeypatch: pytest.MonkeyPatch, classes: int | None, given: int | None
) -> None:
    detector = opened(monkeypatch, classes, given)
    # 128 x 96 pixels: half as large in the network, 16 pixels of border left and right
    (found,) = detector.find(np.zeros((128, 96, 3), np.uint8), 0.25, 0.45)
    expected = [(38 - 24) * 2, 27 * 2, (58 - 24) * 2, 37 * 2, 0.72, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(detector.find(np.zeros((128, 96, 3), np.uint8), 0.75, 0.45)) == 0


def test_an_engine_that_does_not_tell_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"give --data data\.yaml"):
        opened(monkeypatch, None, None)


def test_names(caplog: pytest.LogCaptureFixture) -> None:
    def model(file: str, classes: int, *names: str) -> ImageDetector:
        return ImageDetector(file, FakeEngine(classes), Network("yolov5", classes, names, (64, 64), 0.45, False))

    silent, known, numbered = model("a", 2), model("b", 2, "Ant", "bee"), model("c", 2, "0", "1")
    assert shared_names([silent], [], "") == ["class0", "class1"]
    assert shared_names([silent, known], [], "") == ["Ant", "bee"]
    assert shared_names([known, numbered], ["ant", "bee"], "data.yaml") == ["ant", "bee"]
    assert not caplog.text
    translated = ["\u8682\u8681", "\u871c\u8702"]
    assert shared_names([known, numbered], translated, "data.yaml") == translated
    assert "in data.yaml and Ant in b: the names of data.yaml are shown" in caplog.text
    assert shared_names([numbered, known], [], "") == ["0", "1"]
    with pytest.raises(UserError, match="class 1 is bee in b and wasp in f"):  # also where the data.yaml fits neither
        shared_names([known, model("f", 2, "ant", "wasp")], translated, "data.yaml")
    assert shared_names([model("e", 1, "item")], ["ant", "bee"], "data.yaml") == ["item"]
    with pytest.raises(UserError, match=r"class 0 is bee in data\.yaml and Ant in b"):
        shared_names([known], ["bee", "ant"], "data.yaml")
    with pytest.raises(UserError, match="b has 2 classes, d has 3"):
        shared_names([known, model("d", 3)], [], "")
