"""An engine with a fault in one constant: boxes are wrong, and the text names the nodes that it lies between."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantization.errors import UserError
from quantization.evaluation.comparison import named_images
from quantization.evaluation.engine_check import EngineCheck
from quantization.evaluation.engine_fault import relative_error
from support.drawn_data import NAMES, SIDE, Drawn
from support.perfect_detector import perfect_detector
from support.stand_in_engine import StandIn

FAULT = "x_side"  # of it come the left and right sides, so scores and heights stay right


class Faulty(StandIn):
    """An engine that computes with another constant than its ONNX has."""

    def __init__(self, file: str) -> None:
        model = onnx.load(file)
        (constant,) = (entry for entry in model.graph.initializer if entry.name == FAULT)
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * np.float32(1.5), FAULT))
        wrong = f"{file}.faulty"
        onnx.save(model, wrong)
        super().__init__(wrong)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Right(StandIn):
    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


@pytest.fixture
def net(tmp_path: Path) -> str:
    Drawn(tmp_path / "data").finish()
    return str(perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES)))


def check(net: str, engine: Any, rebuild: Any, locate: bool = True) -> str:
    found = EngineCheck(named_images(str(Path(net).parent / "data" / "images" / "val2017")), locate)(
        engine, net, rebuild
    )
    assert found.are_wrong
    return found.text


def downstream(net: str, name: str) -> set[str]:
    found = {name}
    for node in onnx.load(net).graph.node:
        if found & set(node.input):
            found |= set(node.output)
    return found - {name}


def test_the_fault_lies_between_the_nodes_that_are_named(net: str) -> None:
    text = check(net, Faulty(net), Faulty)
    found = re.search(
        r"; the difference starts between (?:node \w+ of (\w+)|the input) and (?:node \w+ of (\w+)|the outputs)$", text
    )
    assert found is not None, text
    assert found.group(1) not in downstream(net, FAULT)
    assert found.group(2) in {*downstream(net, FAULT), None}
    assert "starts between" not in check(net, Faulty(net), Faulty, locate=False)


def test_what_vanishes_or_cannot_be_built_is_said(net: str) -> None:
    assert "as further outputs the boxes are right" in check(net, Faulty(net), Right)

    def refuse(file: str) -> Any:
        raise UserError("no memory")

    assert check(net, Faulty(net), refuse).endswith("where the difference starts cannot be told (no memory)")


def test_relative_error() -> None:
    one, other = np.array([[3.0, 4.0]], np.float16), np.array([[3.0, 3.0]], np.float32)
    assert relative_error([(one, other)]) == pytest.approx(0.2) and relative_error([(one, one)]) == 0
    assert relative_error([(one, other * np.nan)]) == np.inf
