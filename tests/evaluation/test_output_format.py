"""Outputs of detectors: each format is recognised, read as it is meant, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from quantization.cli.commands import test_command as run_test
from quantization.cli.options import EvaluationCommand
from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.errors import UserError
from quantization.evaluation import engine_predictor
from quantization.evaluation.coco import evaluate
from quantization.evaluation.detections import image_detections
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.network import data_classes
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.evaluation.output_format import Output, OutputFormat, output_format
from quantization.options import DataOptions
from support.drawn_data import NAMES, SIDE, Drawn
from support.perfect_detector import other_form, perfect_detector
from support.stand_in_engine import StandIn
from support.workflow import load_script

KINDS = ("rows", "columns", "final", "efficient-nms")
NAMED = [("num_dets", (1, 1)), ("det_boxes", (1, 100, 4)), ("det_scores", (1, 100)), ("det_classes", (1, 100))]
BATCHED_NMS = [
    ("num_detections", (2, 1)),
    ("nmsed_boxes", (2, 9, 4)),
    ("nmsed_scores", (2, 9)),
    ("nmsed_classes", (2, 9)),
]
UNNAMED = [(str(number), shape) for number, (_, shape) in enumerate(NAMED)]


def outputs(*entries: Any) -> list[Output]:
    """Outputs of shapes, or of names and shapes."""
    return [
        Output(*entry) if isinstance(entry[0], str) else Output(f"output{number}", entry)
        for number, entry in enumerate(entries)
    ]


@pytest.mark.parametrize(
    "shapes, classes, asked, expected",
    [
        ([(1, 25200, 85)], 80, "auto", ("rows", (0,), 80)),
        ([(None, None, 85)], None, "auto", ("rows", (0,), 80)),  # yolov5 --dynamic
        ([(1, 25200, 85)], 3, "auto", ("rows", (0,), 80)),  # names of another number are not believed
        ([(1, 25200, 6)], None, "auto", ("rows", (0,), 1)),
        ([(1, 252, 6)], 1, "auto", ("rows", (0,), 1)),  # 64 pixels
        ([(1, 1020, 6)], 1, "auto", ("rows", (0,), 1)),  # four levels, 128 pixels
        ([(1, None, 6)], None, "auto", ("rows", (0,), 1)),
        ([(1, 25200, 117), (1, 32, 160, 160)], None, "auto", ("rows", (0,), 80)),  # yolov5-seg
        ([(1, 25200, 85), (1, 3, 80, 80, 85)], None, "auto", ("rows", (0,), 80)),  # with raw maps, as yolov5 6.0
        ([(1, 84, 8400)], None, "auto", ("columns", (0,), 80)),
        ([(None, 84, None)], None, "auto", ("columns", (0,), 80)),
        ([(1, 5, 8400)], None, "auto", ("columns", (0,), 1)),
        ([(1, 84, 84)], 80, "auto", ("columns", (0,), 80)),  # 64 pixels
        ([(1, 116, 8400), (1, 32, 160, 160)], 80, "auto", ("columns", (0,), 80)),  # yolov8-seg
        ([(1, 300, 6)], None, "auto", ("final", (0,), None)),
        ([(1, 300, 6)], 1, "auto", ("final", (0,), 1)),
        ([(None, 100, 6)], 80, "auto", ("final", (0,), 80)),
        ([(1, 100, 6)], 1, "rows", ("rows", (0,), 1)),
        ([(1, 100, 6)], None, "final", ("final", (0,), None)),
        (NAMED, None, "auto", ("efficient-nms", (0, 1, 2, 3), None)),
        (NAMED, 96, "auto", ("efficient-nms", (0, 1, 2, 3), None)),  # (1, 100, 4) is not columns
        (NAMED[::-1], 80, "auto", ("efficient-nms", (3, 2, 1, 0), None)),
        (BATCHED_NMS, None, "auto", ("efficient-nms", (0, 1, 2, 3), None)),
        (UNNAMED, None, "efficient-nms", ("efficient-nms", (0, 1, 2, 3), None)),
    ],
)
def test_formats_are_recognised(shapes: Any, classes: int | None, asked: str, expected: Any) -> None:
    assert output_format(outputs(*shapes), classes, asked) == OutputFormat(*expected)


@pytest.mark.parametrize(
    "shapes, classes, asked, message",
    [
        ([(1, 100, 6)], None, "auto", r"output0 \(1, 100, 6\), which may be rows or final: say which"),
        ([(1, 84, 84)], None, "auto", "may be rows or columns"),
        ([(1, 56, 8400)], 1, "auto", "no detector's outputs that are known"),  # keypoints
        ([(None, None, None)], 80, "auto", r"output0 \(\?, \?, \?\), no detector's"),
        ([(1, 3, 80, 80, 85), (1, 3, 40, 40, 85)], 80, "auto", r"output0 \(1, 3, 80, 80, 85\), output1 \(1, 3, 40"),
        ([(1, 100, 92), (1, 100, 4)], None, "auto", "no detector's"),
        ([(None, 7)], 80, "auto", "no detector's"),  # a list over the whole batch
        (UNNAMED, None, "auto", "no detector's"),
        (NAMED[:3], None, "efficient-nms", "cannot be --output-format efficient-nms"),
        ([(1, 25200, 85)], 80, "final", "cannot be --output-format final"),
        ([(1, 300, 4)], 80, "rows", "cannot be --output-format rows"),
    ],
)
def test_others_are_refused(shapes: Any, classes: int | None, asked: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        output_format(outputs(*shapes), classes, asked, "x.onnx")
    assert str(caught.value).startswith("x.onnx gives ") and "\n" not in str(caught.value)


def test_rows_and_columns_agree() -> None:
    generator = np.random.default_rng(0)
    rows = generator.random((2, 60, 8))
    rows[..., :4] *= 40
    rows[..., 4] = 1
    columns = np.delete(rows, 4, axis=2).transpose(0, 2, 1)
    found = output_format(outputs(columns.shape)).boxes([columns])
    for place in range(2):
        expected = image_detections(rows, place, 0.3, 0.5)
        np.testing.assert_array_equal(image_detections(found, place, 0.3, 0.5), expected)


def test_one_class_in_columns_keeps_its_score_where_the_objectness_alone_counts() -> None:
    columns = np.array([[[20.0], [20], [8], [8], [0.7]]]).repeat(30, axis=2)
    found = output_format(outputs(columns.shape)).boxes([columns])
    for objectness_only in (False, True):
        (row,) = image_detections(found, 0, 0.1, 0.5, objectness_only)
        np.testing.assert_allclose(row, [16, 16, 24, 24, 0.7, 0])


def test_final_detections_are_sorted_and_not_suppressed_again() -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :3] = [[0, 0, 9, 9, 0.25, 2], [0, 0, 9, 9, 0.75, 2], [1, 1, 2, 2, 0.125, 0]]
    (found,) = output_format(outputs(rows.shape)).boxes([rows])
    np.testing.assert_array_equal(found, rows[0, [1, 0, 2]])
    assert len(image_detections([found], 0, 0.2, 0.5)) == 2


def test_no_more_than_the_number_of_detections_is_read() -> None:
    parts = [np.array([[1]], np.int32), np.full((1, 3, 4), 5.0), np.full((1, 3), 0.5), np.full((1, 3), 7, np.int32)]
    (found,) = OutputFormat("efficient-nms", (0, 1, 2, 3), None).boxes(parts)
    np.testing.assert_array_equal(found, [[5, 5, 5, 5, 0.5, 7]])


@pytest.mark.parametrize(
    "row", [[0, 0, 9, 9, 0.5, 0.7], [9, 9, 2, 2, 0.5, 1], [0, 0, 9, 9, 0.5, -1], [0, 0, 9, 9, 8.0, 1]]
)
def test_rows_that_are_no_final_detections_are_refused(row: list[float]) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 7] = row
    with pytest.raises(UserError, match="is not x1, y1, x2, y2, score, class"):
        output_format(outputs(rows.shape)).boxes([rows])


# --- whole evaluations ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = Drawn(tmp_path_factory.mktemp("drawn"))
    data.finish()
    return data.root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A perfect detector of each format, by format."""
    folder = tmp_path_factory.mktemp("formats")
    made = {kind: perfect_detector(folder / f"{kind}.onnx", (SIDE, SIDE), len(NAMES)) for kind in KINDS}
    return {kind: str(file if kind == "rows" else other_form(file, kind, len(NAMES))) for kind, file in made.items()}


@pytest.fixture(scope="module")
def eval_engine() -> ModuleType:
    return load_script("eval-engine")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["cocodir", "data"])
def test_the_command_test_takes_every_format(
    files: dict[str, str], drawn: Path, tmp_path: Path, kind: str, form: str
) -> None:
    figures = tmp_path / "figures.json"
    images = DataOptions(**{form: str(drawn if form == "cocodir" else drawn / "data.yaml")}, batch_size=3)
    assert run_test("yolov5", EvaluationCommand(files[kind], str(figures), images=images)) == 0
    content = json.loads(figures.read_text())
    assert content["map"] == pytest.approx(1, abs=1e-9) and content["images"] == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [False, True])
def test_eval_engine_takes_every_format(
    files: dict[str, str],
    drawn: Path,
    tmp_path: Path,
    eval_engine: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    engine: bool,
) -> None:
    monkeypatch.setattr(engine_predictor, "Engine", StandIn)
    monkeypatch.setattr(engine_predictor, "Cuda", lambda: None)
    file = Path(files[kind])
    if engine:
        (tmp_path / "net.plan").write_bytes(file.read_bytes())
        file = tmp_path / "net.plan"
    figures = tmp_path / "figures.json"
    arguments = [str(file), "--cocodir", str(drawn), "--save-json", str(figures), "--output-format", kind]
    assert eval_engine.main(arguments) == 0
    assert json.loads(figures.read_text())["map"] == pytest.approx(1, abs=1e-9)


def test_a_class_that_the_data_lacks_is_refused(files: dict[str, str], drawn: Path) -> None:
    dataset = open_dataset(str(drawn))
    truth = GroundTruth(dataset, 3)
    truth.names.pop()
    with pytest.raises(UserError, match="object of class 2, counted from 0, but the data has 2 classes"):
        evaluate(OnnxPredictor(files["final"]), Loader(dataset.val, (SIDE, SIDE), 4), truth)


def test_the_data_tells_the_number_of_classes_or_it_is_refused(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.json["categories"].insert(0, {"id": 0, "name": "insect"})  # a parent, or a class without objects
    data.yaml.pop("names")
    data.finish()
    assert data_classes(DataOptions(data=str(tmp_path / "data.yaml")), "x.plan") == 3
    for changed in (data.json, None):
        data.json = changed
        (tmp_path / "annotations" / "instances_val2017.json").unlink()
        data.finish()
        with pytest.raises(UserError, match=r"x.plan does not tell its number of classes, nor does --cocodir"):
            data_classes(DataOptions(cocodir=str(tmp_path)), "x.plan")


def test_a_checkpoint_has_no_output_format() -> None:
    with pytest.raises(UserError, match=r"--output-format is for an .onnx; best.pt is a checkpoint"):
        EvaluationCommand("best.pt", output_format="final")
