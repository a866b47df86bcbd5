"""Suppression in the graph: against greedy suppression of random rows, in whole exports, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantization.errors import UserError
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export.end2end import Suppression, append_suppression
from quantization.onnx_graph.load import load_onnx

ROWS = 60
OUTPUTS = {
    "num_dets": (TensorProto.INT32, [1]),
    "det_boxes": (TensorProto.FLOAT, [7, 4]),
    "det_scores": (TensorProto.FLOAT, [7]),
    "det_classes": (TensorProto.INT32, [7]),
}


def rows_graph(classes: int, batch: int | str) -> onnx.ModelProto:
    """A network whose image (B, 1, N, 5 + C) is the rows themselves."""
    shapes = {"images": [batch, 1, ROWS, 5 + classes], "outputs": [batch, ROWS, 5 + classes]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    node = helper.make_node("Squeeze", ["images", "axis"], ["outputs"])
    graph = helper.make_graph([node], "rows", values[:1], values[1:], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def random_rows(batch: int, classes: int) -> np.ndarray:
    """Boxes of which many overlap; the last image has none above 0.1."""
    rows = np.random.default_rng(classes).random((batch, ROWS, 5 + classes), dtype=np.float32)
    rows[..., :2] *= 30
    rows[..., 2:4] = 5 + 20 * rows[..., 2:4]
    rows[-1, :, 4] *= 0.1
    return rows


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two boxes: centre x, centre y, width, height."""
    low = np.maximum(first[:2] - first[2:4] / 2, second[:2] - second[2:4] / 2)
    high = np.minimum(first[:2] + first[2:4] / 2, second[:2] + second[2:4] / 2)
    both = np.prod(np.maximum(high - low, 0))
    return float(both / (np.prod(first[2:4]) + np.prod(second[2:4]) - both))


def expected_detections(rows: np.ndarray, suppression: Suppression) -> list[tuple[float, ...]]:
    """What greedy suppression keeps of one image, one candidate after the other: every class of a box."""
    scores = rows[:, 4:5] * rows[:, 5:]
    if suppression.objectness_only and scores.shape[1] == 1:
        scores = rows[:, 4:5]
    candidates = [(scores[row, label], row, label) for row, label in np.ndindex(scores.shape)]
    kept: list[tuple[float, int, int]] = []
    for score, row, label in sorted(candidates, reverse=True):
        rivals = [other for _, other, same in kept if same == label]
        if score > np.float32(suppression.confidence) and all(
            overlap(rows[row], rows[other]) <= suppression.iou for other in rivals
        ):
            kept.append((score, row, label))
    corners = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2), 1)
    return [(*corners[row], score, label) for score, row, label in kept[: suppression.keep]]


def made(tmp_path: Path, suppression: Suppression, batch: int | str = "batch") -> str:
    model = rows_graph(len(suppression.names), batch)
    append_suppression(model, suppression)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(tmp_path / "net.onnx"))
    return str(tmp_path / "net.onnx")


@pytest.mark.parametrize("keep", [7, 500])
@pytest.mark.parametrize("iou, confidence", [(0.65, 0.35), (0.3, 0.01)])
@pytest.mark.parametrize(
    "classes, objectness_only, batch", [(3, False, "batch"), (3, True, 4), (1, False, 4), (1, True, "n")]
)
def test_the_standard_form_finds_what_greedy_suppression_keeps(
    tmp_path: Path, keep: int, iou: float, confidence: float, classes: int, objectness_only: bool, batch: int | str
) -> None:
    names = tuple("abc"[:classes])
    suppression = Suppression("onnx", keep, iou, confidence, names, objectness_only)
    predict = OnnxPredictor(made(tmp_path, suppression, batch))
    assert (predict.format.kind, predict.classes, predict.class_names) == ("efficient-nms", classes, list(names))
    images = random_rows(4, classes)
    number, boxes, scores, labels = predict.run(images[:, None])
    counts = []
    for place, rows in enumerate(images):
        expected = np.reshape(expected_detections(rows, suppression), (-1, 6))
        (count,) = number[place]
        counts.append(count)
        assert count == len(expected)
        np.testing.assert_allclose(boxes[place, :count], expected[:, :4], atol=1e-4)
        np.testing.assert_allclose(scores[place, :count], expected[:, 4], atol=1e-7)
        np.testing.assert_array_equal(labels[place, :count], expected[:, 5])
        assert not boxes[place, count:].any() and not scores[place, count:].any() and not labels[place, count:].any()
    assert (max(counts) == 7) if keep == 7 else (7 < max(counts) < 500)
    assert counts[-1] == 0 or confidence < 0.1


@pytest.mark.parametrize("form", ["trt", "onnx"])
@pytest.mark.parametrize("batch", [2, "batch"])
def test_both_forms_have_one_layout(tmp_path: Path, form: str, batch: int | str) -> None:
    file = made(tmp_path, Suppression(form, 7, 0.65, 0.35, ("a", "b")), batch)
    model = load_onnx(file)
    found = {output.name: output.type.tensor_type for output in model.graph.output}
    assert list(found) == list(OUTPUTS)
    for name, (kind, sides) in OUTPUTS.items():
        shape = [dim.dim_value or dim.dim_param for dim in found[name].shape.dim]
        assert (found[name].elem_type, shape) == (kind, [batch, *sides])


def test_the_plugin_has_the_attributes_of_yolov7s_own_export(tmp_path: Path) -> None:
    model = onnx.load(made(tmp_path, Suppression("trt", 100, 0.65, 0.35, ("a", "b"))))
    node = model.graph.node[-1]
    assert (node.op_type, node.domain) == ("EfficientNMS_TRT", "TRT")
    assert {item.name: helper.get_attribute_value(item) for item in node.attribute} == {
        "background_class": -1,
        "box_coding": 1,
        "iou_threshold": pytest.approx(0.65),
        "max_output_boxes": 100,
        "plugin_version": b"1",
        "score_activation": 0,
        "score_threshold": pytest.approx(0.35),
    }
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 13, "TRT": 1}


def test_onnx_runtime_does_not_run_the_plugin(tmp_path: Path) -> None:
    file = made(tmp_path, Suppression("trt", 100, 0.65, 0.35, ("a", "b")))
    with pytest.raises(UserError, match=r"eval-engine\.py, or export with --end2end onnx") as caught:
        OnnxPredictor(file)
    assert "\n" not in str(caught.value)


def test_masks_and_other_numbers_are_refused() -> None:
    suppression = Suppression("onnx", 100, 0.65, 0.35, ("a", "b"))
    model = rows_graph(3, 1)
    with pytest.raises(UserError, match=r"takes one output \(B, boxes, 7\), this network has outputs \[1, 60, 8\]"):
        append_suppression(model, suppression)
    model = rows_graph(2, 1)
    model.graph.output.append(helper.make_tensor_value_info("protos", TensorProto.FLOAT, [1, 32, 8, 8]))
    with pytest.raises(UserError, match=r"protos \[1, 32, 8, 8\]"):
        append_suppression(model, suppression)
