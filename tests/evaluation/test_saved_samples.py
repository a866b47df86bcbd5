"""Networks that are compared by way of a file."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.errors import UserError
from quantization.evaluation.class_table import class_text
from quantization.evaluation.coco import Evaluator, Metrics
from quantization.evaluation.detecting import Thresholds
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.saved_samples import compare_with, read_samples, write_samples
from shapes import draw_dataset
from support.drawn_data import SIDE, Drawn
from support.log_records import package_records
from support.perfect_detector import perfect_detector


class Fixed:
    """A predictor of random boxes; ``shift`` pixels to the right."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def __call__(self, images: np.ndarray) -> np.ndarray:
        generator = np.random.default_rng(int(images.sum()) % 1000)
        boxes = generator.random((len(images), 300, 9)).astype(np.float32)
        boxes[:, :, :4] = boxes[:, :, :4] * 60 + [20, 20, 15, 15]
        boxes[:, :, 0] += self.shift
        return boxes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train=2, val=12, size=96, classes=4, objects=4, seed=3)
    return folder


def evaluator(data: Path, images: int = 12, iou: float = 0.65) -> Evaluator:
    dataset = open_dataset(str(data))
    dataset = dataset.with_val(dataset.val[:images])
    return Evaluator(GroundTruth(dataset, 4), Loader(dataset.val, (96, 96), 4), Thresholds(iou=iou))


def test_a_file_compares_as_the_networks_themselves(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="quantization")
    file = str(tmp_path / "float.npz")
    first = evaluator(data)
    assert "Fewer than" not in caplog.text
    evaluator(data, images=2)
    assert "Fewer than 10 boxes in validation" in caplog.text
    reference = first(Fixed(), "float")
    write_samples(file, reference, "float.pt", first)
    assert reference.samples is not None
    first.references["float.pt"] = reference.samples
    expected = first(Fixed(5), "moved")
    second = evaluator(data)
    compare_with(read_samples(file), second)
    found = second(Fixed(5), "moved")
    assert found.against == expected.against and found == Metrics(**expected.content())
    assert found.against["float.pt"]["map"]["points"] == pytest.approx(100 * (expected.map - reference.map))
    assert found.against["float.pt"]["map"]["plus_minus"] > 0
    assert found.conditions == "12 images, squares of 96, NMS IoU 0.65, confidence 0.001"
    assert not package_records(caplog, above=logging.INFO)
    heading, *lines = class_text(found.content()).split("\n")
    assert heading.split() == ["AP@0.5:0.95", "boxes", "against", "float.pt"]
    assert len(lines) == 4 and all(line.count("+-") == 2 for line in lines)
    other = evaluator(data, iou=0.5)
    compare_with(read_samples(file), other)
    assert "measured under other conditions (12 images, squares of 96, NMS IoU 0.65" in caplog.text


def test_files_that_do_not_fit_are_refused(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "float.npz"
    first = evaluator(data)
    write_samples(str(file), first(Fixed(), "float"), "float.pt", first)
    with pytest.raises(UserError, match="other validation images"):
        compare_with(read_samples(str(file)), evaluator(data, images=11))
    with pytest.raises(UserError, match=r"none\.npz cannot be read \(No such file"):
        read_samples(str(tmp_path / "none.npz"))
    with np.load(file) as content:
        parts = dict(content)
    for name, changes in (("short", {"map": parts["map"][:5]}), ("newer", {"format": 9}), ("objects", {"map": [{}]})):
        np.savez(tmp_path / f"{name}.npz", **{**parts, **changes})
    (tmp_path / "text.npz").write_text("a model")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:900])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("short.npz", "newer.npz", "objects.npz", "text.npz", "cut.npz", "empty.npz", "array.npy"):
        with pytest.raises(UserError, match=r"--against .* --save-samples wrote"):
            read_samples(str(tmp_path / name))


def test_an_engine_is_compared_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By scripts/eval-engine.py, an ONNX standing for the engine: two detectors, one of which knows one class less."""
    data = Drawn(tmp_path / "data")
    data.finish()
    script = Path(__file__).parents[2] / "scripts" / "eval-engine.py"
    spec = importlib.util.spec_from_file_location("eval_engine", script)
    assert spec is not None and spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    common = ["--cocodir", str(data.root), "--workers", "1"]
    files = {name: str(tmp_path / name) for name in ("whole.onnx", "part.onnx", "float.npz", "part.json")}
    perfect_detector(Path(files["whole.onnx"]), (SIDE, SIDE), 3)
    model = onnx.load(files["whole.onnx"])
    scores = next(entry for entry in model.graph.initializer if entry.name == "scores")  # (1, boxes, classes)
    blind = numpy_helper.to_array(scores).copy()
    blind[..., 2] = 0
    scores.CopyFrom(numpy_helper.from_array(blind, "scores"))
    onnx.save(model, files["part.onnx"])
    assert engine.main([files["whole.onnx"], *common, "--save-samples", files["float.npz"]]) == 0
    assert (
        engine.main([files["part.onnx"], *common, "--against", files["float.npz"], "--save-json", files["part.json"]])
        == 0
    )
    (apart,) = json.loads(Path(files["part.json"]).read_text())["against"].values()
    assert apart["per_class"]["cat"]["points"] == -100 and apart["per_class"]["ant"] == {"points": 0, "plus_minus": 0}
    rows = [line.split() for line in capsys.readouterr().out.split("\n")]
    assert ["cat", "0.0000", "+-", "0.0000", "11", "-100.00", "+-", "0.00"] in rows
