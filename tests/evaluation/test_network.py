"""The data set and the evaluator for a network: annotations are read once, and are those of the images that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantization.evaluation import network as module
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.network import Network, make_evaluator, open_checked
from quantization.options import DataOptions
from support.drawn_data import NAMES, SIDE, Drawn

NETWORK = Network("yolov5", len(NAMES), tuple(NAMES), (SIDE, SIDE), 0.6, False)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The annotations that are read."""
    found: list[Any] = []

    class Counted(GroundTruth):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            found.append(self)

    monkeypatch.setattr(module, "GroundTruth", Counted)
    return found


def write(root: Path, json: bool, labels: bool) -> Drawn:
    drawn = Drawn(root)
    if not labels:
        drawn.without_labels()
    if not json:
        drawn.json = None
    drawn.finish()
    return drawn


@pytest.mark.parametrize("json, labels", [(True, False), (False, True), (True, True)])
def test_annotations_are_read_once(tmp_path: Path, read: list[Any], json: bool, labels: bool) -> None:
    drawn = write(tmp_path, json, labels)
    options = DataOptions(cocodir=str(tmp_path))
    checked = open_checked(options, NETWORK)
    evaluator = make_evaluator(options, NETWORK, checked.dataset, checked.truth)
    (truth,) = read
    assert evaluator.truth is truth and truth.uses_labels == (not json)
    expected = [[t.x, t.y, t.x + t.w, t.y + t.h, t.label] for things in drawn.things.values() for t in things]
    found = np.column_stack((truth.arrays().boxes, truth.arrays().labels))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_where_the_json_does_not_fit_the_labels_decide(tmp_path: Path, read: list[Any]) -> None:
    drawn = write(tmp_path, json=True, labels=True)
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    damaged = next(iter(drawn.things))
    drawn.label(damaged).write_text("0 9 9 9 9\n")
    options = DataOptions(cocodir=str(tmp_path))
    checked = open_checked(options, NETWORK)
    assert checked.truth is None and len(checked.dataset.val) == len(drawn.things) - 1
    evaluator = make_evaluator(options, NETWORK, checked.dataset, checked.truth)
    assert evaluator.truth.files == checked.dataset.val and damaged not in str(checked.dataset.val)
