"""Annotations, normalised: against pycocotools on sound files, and on files damaged at random."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantization.data.dataset import Dataset
from quantization.errors import UserError
from quantization.evaluation.coco import coco_metrics
from quantization.evaluation.detecting import Found
from quantization.evaluation.ground_truth import GroundTruth
from support.drawn_data import NAMES, SIDE, Drawn


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    data = Drawn(tmp_path_factory.mktemp("drawn") / "data")
    data.without_labels()
    data.finish()
    return data


def dataset_of(drawn: Drawn, annotations: Path | None, names: list[str] | None = None) -> Dataset:
    files = [str(drawn.val / name) for name in drawn.things]
    return Dataset(files, files, annotations, NAMES if names is None else names, "--data x")


def random_found(truth: GroundTruth, generator: np.random.Generator) -> Found:
    """The true boxes, shaken, some with a wrong class, and boxes that are nowhere."""
    boxes = truth.arrays()
    image = np.concatenate((boxes.image, generator.integers(0, len(truth.files), 40)))
    corner = generator.random((40, 2)) * 40
    corners = np.concatenate((boxes.boxes, np.concatenate((corner, corner + 5 + 15 * generator.random((40, 2))), 1)))
    corners[: len(boxes.image)] += generator.normal(0, 1, (len(boxes.image), 4))
    labels = np.concatenate((boxes.labels, generator.integers(0, 3, 40)))
    labels[generator.random(len(labels)) < 0.1] = 0
    return Found(image, corners, generator.random(len(image)), labels)


@pytest.mark.parametrize("seed", range(3))
def test_map_as_pycocotools_alone_gives_it(drawn: Drawn, tmp_path: Path, seed: int) -> None:
    content = drawn.coco()
    for annotation in content["annotations"][::5]:
        annotation["iscrowd"] = 1
    file = tmp_path / "x.json"
    file.write_text(json.dumps(content))
    truth = GroundTruth(dataset_of(drawn, file), 3)
    found = random_found(truth, np.random.default_rng(seed))
    metrics = coco_metrics(truth, found)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
        ids = {image["file_name"]: image["id"] for image in content["images"]}
        results = [
            {
                "image_id": ids[Path(truth.files[image]).name],
                "category_id": int(label) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(score),
            }
            for image, (x1, y1, x2, y2), score, label in zip(found.image, found.boxes, found.scores, found.labels)
        ]
        coco.dataset["info"] = {}
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.05 < metrics.map < 0.9
    assert (metrics.map, metrics.map50) == pytest.approx(tuple(evaluation.stats[:2]), abs=1e-9)


def test_without_detections_a_class_without_boxes_is_still_left_out(drawn: Drawn, tmp_path: Path) -> None:
    content = drawn.coco()
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 2]
    (tmp_path / "x.json").write_text(json.dumps(content))
    truth = GroundTruth(dataset_of(drawn, tmp_path / "x.json"), 3)
    nothing = Found(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert coco_metrics(truth, nothing).per_class == {"ant": 0, "bee": -1, "cat": 0}
    right = truth.arrays()
    metrics = coco_metrics(truth, Found(right.image, right.boxes, np.ones(len(right.image)), right.labels))
    assert metrics.map == pytest.approx(1) and metrics.per_class["bee"] == -1


def test_names_of_model_and_data_must_not_contradict(drawn: Drawn) -> None:
    dataset = dataset_of(drawn, drawn.root / "annotations" / "instances_val2017.json", ["bee", "ant", "cat"])
    assert GroundTruth(dataset, 3).names == ["bee", "ant", "cat"]
    with pytest.raises(UserError, match="another order than the model: class 0 is bee there and ant in the model"):
        GroundTruth(dataset, 3, NAMES)
    with pytest.raises(UserError, match="has 3 classes, the model has 80"):
        GroundTruth(dataset, 80)


def test_the_models_names_map_categories(drawn: Drawn) -> None:
    dataset = dataset_of(drawn, drawn.root / "annotations" / "instances_val2017.json", [])
    plain, turned = GroundTruth(dataset, 3), GroundTruth(dataset, 3, ["Cat", "Bee", "Ant"])
    np.testing.assert_array_equal(turned.arrays().labels, 2 - plain.arrays().labels)
    assert turned.names == ["cat", "bee", "ant"]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([10**30, -1, 1e300, float("nan"), float("inf"), 0.5, "", "1", "000.png", [], {}, [1], [[1] * 6]]),
)


def damage(content: Any, data: st.DataObject) -> None:
    """Replace, remove or repeat something at a random place."""
    node, key = {"": content}, ""
    inner: Any = content
    for _ in range(data.draw(st.integers(1, 4))):
        if not isinstance(inner, (dict, list)) or not inner:
            break
        node = inner
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = inner[key]
    action = data.draw(st.sampled_from(["replace", "remove", "repeat"]))
    if action == "replace":
        node[key] = copy.deepcopy(data.draw(VALUES))  # a list that is drawn twice would come to hold itself
    elif action == "remove":
        del node[key]
    elif isinstance(node, list):
        node.append(copy.deepcopy(inner))


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_normalised_or_refused_at_once(drawn: Drawn, tmp_path: Path, data: st.DataObject) -> None:
    content = drawn.coco()
    for annotation in content["annotations"][:3]:  # with masks, too
        annotation["segmentation"] = {"size": [SIDE, SIDE], "counts": [9, 3, SIDE * SIDE - 12]}
        del annotation["bbox"]
    for _ in range(data.draw(st.integers(1, 3))):
        damage(content, data)
    (tmp_path / "x.json").write_text(json.dumps(content))
    try:
        truth = GroundTruth(dataset_of(drawn, tmp_path / "x.json"), 3)
    except UserError as error:
        assert ("\n" not in str(error) and "x.json" in str(error)) or "--data x" in str(error)
        return
    boxes = truth.arrays()
    metrics = coco_metrics(truth, Found(boxes.image, boxes.boxes, np.ones(len(boxes.image)), boxes.labels))
    assert metrics.map == pytest.approx(1)


def test_labels_do_not_replace_the_json_where_the_model_is_the_wrong_one(tmp_path: Path) -> None:
    data = Drawn(tmp_path / "data")
    data.finish()
    dataset = dataset_of(data, data.root / "annotations" / "instances_val2017.json", [])
    for names in (None, [str(number) for number in range(80)]):  # what a checkpoint without names has
        with pytest.raises(UserError, match="has 3 classes, the model has 80"):
            GroundTruth(dataset, 80, names)
    assert len(GroundTruth(dataset, 3).arrays().image) == sum(map(len, data.things.values()))
    (data.root / "annotations" / "instances_val2017.json").write_text("{")
    assert len(GroundTruth(dataset, 3).arrays().image) == sum(map(len, data.things.values()))
    (data.labels / "000.txt").write_text("5 0.5 0.5 0.1 0.1")
    assert GroundTruth(dataset, 80).arrays().labels.max() == 5
