"""The upstream in an ONNX's metadata: written, read by all that evaluate, and told of a plan by the record beside it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from quantization.engine.plans import plan_origin, record_path
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.onnx_graph.origin import Origin, file_origin, read_origin, write_origin
from quantization.onnx_quantize.float_model import FloatModel
from support.perfect_detector import perfect_detector
from support.small_net import small_net

YOLOV5 = Origin("yolov5", 0.6)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = perfect_detector(tmp_path / "net.onnx", (64, 64), 3)
    assert file_origin(str(file)) is None and OnnxPredictor(str(file)).origin is None
    model = onnx.load(file)
    write_origin(model, YOLOV5)
    onnx.save(model, file)
    assert file_origin(str(file)) == OnnxPredictor(str(file)).origin == YOLOV5


def test_a_conversion_of_the_opset_keeps_it(tmp_path: Path) -> None:
    file = small_net(tmp_path / "net.onnx", 1)
    model = onnx.load(file)
    write_origin(model, YOLOV5)
    onnx.save(model, file)
    converted = FloatModel(str(file), 19).model
    assert converted.opset_import[0].version == 19
    assert read_origin({entry.key: entry.value for entry in converted.metadata_props}) == YOLOV5


@pytest.mark.parametrize("metadata", [{}, {"upstream": "yolov5"}, {"upstream": "yolov5", "nms_iou": "six"}])
def test_what_does_not_tell_all_tells_nothing(metadata: dict[str, str], tmp_path: Path) -> None:
    assert read_origin(metadata) is None
    assert read_origin({"upstream": "another", "nms_iou": "0.6"}) is None
    assert read_origin({"upstream": "yolov5", "nms_iou": "nan"}) is None
    assert read_origin({"upstream": "yolov5", "nms_iou": "1.5"}) is None
    plan = str(tmp_path / "a.plan")
    Path(record_path(plan)).write_text(json.dumps({"metadata": metadata}))
    assert plan_origin(plan) is None


@pytest.mark.parametrize("content", [None, "{", "[]", '{"key": 1}', '{"metadata": 3}'])
def test_a_plan_without_a_record_of_ours_tells_nothing(content: str | None, tmp_path: Path) -> None:
    plan = str(tmp_path / "a.plan")
    if content is not None:
        Path(record_path(plan)).write_text(content)
    assert plan_origin(plan) is None
    assert file_origin(str(tmp_path / "none.onnx")) is None


def test_yolov7_scores_one_class_by_its_objectness() -> None:
    assert Origin("yolov7", 0.65).objectness_only and not YOLOV5.objectness_only
