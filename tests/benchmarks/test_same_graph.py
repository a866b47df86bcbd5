"""Each kind of difference between two graphs is found, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import pytest
import same_graph
from onnx import numpy_helper, parser

from quantization.errors import UserError

GRAPH = """
<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2] x) => (float[1, 2] y)
<float[2] w = {1.0, 2.0}> { a = Mul (x, w) y = Concat <axis = 1> (a) }
"""


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Add"


def other_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "x"


def other_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute[0].i = 0


def other_value(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([1, 2.5]), "w"))


def other_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float64([1, 2]), "w"))


def missing_node(model: onnx.ModelProto) -> None:
    del model.graph.node[1]


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 14


def other_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3


CHANGES: dict[Callable[[onnx.ModelProto], None], str] = {
    other_operator: "op_type Mul against Add",
    other_input: "input ['a'] against ['x']",
    other_attribute: "attributes differ",
    other_value: "initializer w",
    other_type: "initializer w",
    missing_node: "nodes: 2 against 1",
    other_opset: "operator sets",
    other_shape: "outputs of the graph",
}


@pytest.mark.parametrize("change", CHANGES)
def test_differences(change: Callable[[onnx.ModelProto], None], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = parser.parse_model(GRAPH), parser.parse_model(GRAPH)
    # the same value in the other of protobuf's two spellings
    second.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(second.graph.initializer[0]), "w")
    )
    files = [str(tmp_path / name) for name in ("first.onnx", "second.onnx")]
    for model, file in zip((first, second), files):
        onnx.save(model, file)
    assert same_graph.main(files) == 0
    change(second)
    onnx.save(second, files[1])
    assert same_graph.main(files) == 1
    assert CHANGES[change] in capsys.readouterr().out
    assert len(list(same_graph.differences(first, second))) == 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        same_graph.main([str(tmp_path / "no.onnx"), str(tmp_path / "no.onnx")])
