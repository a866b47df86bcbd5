"""ONNX files from strangers: whole ones load as they are, others end in one line that names the file and the place."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from quantization.errors import UserError
from quantization.onnx_graph.graph import OnnxGraph
from quantization.onnx_graph.load import load_onnx
from quantization.preflight.drawing import to_dot
from quantization.preflight.report import preflight
from support.qdq_net import STYLES, Net, pyramid


def parse(body: str, output: str = "float[1,4] out") -> ModelProto:
    text = f'<ir_version: 8, opset_import: ["" : 13]> test (float[1,4] x) => ({output}) <float[4] w = {{1,2,3,4}}> {{{body}}}'
    return parser.parse_model(text)


def load(model: ModelProto, folder: Path) -> ModelProto:
    file = folder / "net.onnx"
    file.write_bytes(model.SerializeToString())
    return load_onnx(str(file))


def run(model: ModelProto, images: np.ndarray) -> np.ndarray:
    unnamed = ModelProto()
    unnamed.CopyFrom(model)
    for node in unnamed.graph.node:  # qdq_net gives one name to several
        node.ClearField("name")
    session = onnxruntime.InferenceSession(unnamed.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("style", STYLES)
def test_whole_file_stays_as_it_is(tmp_path: Path, style: str) -> None:
    model = pyramid(style)
    assert load(model, tmp_path).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_nodes(tmp_path: Path, style: str, seed: int) -> None:
    model = pyramid(style, (0.1, 0.2))
    images = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected = run(model, images), preflight(model).to_dict()
    nodes = list(model.graph.node)
    random.Random(seed).shuffle(nodes)
    shuffled = ModelProto()
    shuffled.CopyFrom(model)
    shuffled.graph.ClearField("node")
    shuffled.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(shuffled)
    loaded = load(shuffled, tmp_path)
    assert np.array_equal(run(loaded, images), expected[0])
    found = preflight(loaded).to_dict()
    assert {key: found[key] for key in ("macs", "separate_q", "type_changing", "int8_layers")} == {
        key: expected[1][key] for key in ("macs", "separate_q", "type_changing", "int8_layers")
    }


def test_bodies_read_tensors_from_outside(tmp_path: Path) -> None:
    """The If reads ``late`` in its bodies only, so it must come behind the node that makes it."""
    body = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["inside"])],
        "body",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1, 4])],
    )
    model = parse("early = Relu (x) out = Relu (early)")
    branch = helper.make_node("If", ["condition"], ["out"], then_branch=body, else_branch=body)
    nodes = [helper.make_node("Constant", [], ["condition"], value=numpy_helper.from_array(np.array(True))), branch]
    nodes.append(helper.make_node("Relu", ["x"], ["late"]))
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    assert [node.op_type for node in load(model, tmp_path).graph.node] == ["Constant", "Relu", "If"]


def without_initializers(model: ModelProto) -> None:
    model.graph.ClearField("initializer")


def without_bytes(model: ModelProto) -> None:
    model.graph.initializer[0].ClearField("float_data")
    model.graph.initializer[0].ClearField("raw_data")


def cut(model: ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.raw_data = tensor.raw_data[:-1]
    model.graph.initializer[0].CopyFrom(tensor)


def cut_constant(model: ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float16), "k")
    tensor.raw_data = tensor.raw_data[:6]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))


def negative(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def untyped(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 999


def without_input(model: ModelProto) -> None:
    model.graph.ClearField("input")


def without_producer(model: ModelProto) -> None:
    del model.graph.node[0]


def unmade_output(model: ModelProto) -> None:
    model.graph.output[0].name = "other"


def cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "b"


def twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "a"
    model.graph.node[2].input[0] = "a"


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Nonsense"


def without_inputs_of_a_node(model: ModelProto) -> None:
    model.graph.node[1].ClearField("input")


@pytest.mark.parametrize(
    "damage, words",
    [
        (without_initializers, "reads w, which nothing makes"),
        (without_bytes, "weight w has 0 values, but its shape [4] asks for 4"),
        (cut, "weight w has 15 bytes, but its shape [4] asks for 16"),
        (cut_constant, "weight k has 6 bytes, but its shape [4] asks for 8"),
        (negative, "weight w has the shape [-4]"),
        (untyped, "no known type (999)"),
        (without_input, "node model.0 (Add) reads x, which nothing makes"),
        (without_producer, "reads a, which nothing makes"),
        (unmade_output, "nothing makes its output other"),
        (cycle, "the graph has a cycle through node model.0 (Add)"),
        (twice, "SSA"),
        (unknown_operator, "Nonsense"),
        (without_inputs_of_a_node, "is no valid ONNX"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Callable[[ModelProto], None], words: str) -> None:
    model = parse("a = Add (x, w) b = Relu (a) out = Identity (b)")
    model.graph.node[0].name = "/model/model.0/Add"
    load(model, tmp_path)
    damage(model)
    with pytest.raises(UserError) as error:
        load(model, tmp_path)
    message = str(error.value)
    assert words in message and "\n" not in message and message.startswith(str(tmp_path / "net.onnx"))


def test_no_file_no_onnx(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_onnx(str(tmp_path / "missing.onnx"))
    with pytest.raises(UserError, match="is a folder: name an ONNX file"):
        load_onnx(str(tmp_path))
    for content in (b"hello, this is text", b"", b"\x08\x08"):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(UserError, match="is no ONNX"):
            load_onnx(str(tmp_path / "net.onnx"))
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"net\.pt is no ONNX: export the checkpoint"):
        load_onnx(str(tmp_path / "net.pt"))


def test_external_weights(tmp_path: Path) -> None:
    model, file, data = pyramid("dynamo"), tmp_path / "net.onnx", tmp_path / "weights.data"
    onnx.save(model, str(file), save_as_external_data=True, location=data.name, size_threshold=0)
    weights = [numpy_helper.to_array(tensor) for tensor in pyramid("dynamo").graph.initializer]
    loaded = [numpy_helper.to_array(tensor) for tensor in load_onnx(str(file)).graph.initializer]
    assert all(np.array_equal(a, b) for a, b in zip(weights, loaded)) and len(weights) == len(loaded)
    content = data.read_bytes()
    data.write_bytes(content[:-3])
    with pytest.raises(UserError, match=r"weight|external data") as error:
        load_onnx(str(file))
    assert "\n" not in str(error.value)
    data.unlink()
    with pytest.raises(UserError, match="external data beside it") as error:
        load_onnx(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float16),
        np.array([True, False]),
        np.arange(5, dtype=np.int8),
        np.ones(3, np.complex64),
        np.ones((0, 4), np.float32),
        np.float64(3),
        np.array(["a", "b"], object),
    ],
    ids=str,
)
@pytest.mark.parametrize("raw", [True, False])
def test_all_ways_to_store_a_weight(tmp_path: Path, value: np.ndarray, raw: bool) -> None:
    model = parse("out = Relu (x)")
    kind = helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
    if raw or kind == TensorProto.STRING:
        tensor = numpy_helper.from_array(np.asarray(value), "v")
    else:
        tensor = helper.make_tensor("v", kind, np.shape(value), np.ravel(value).tolist())
    model.graph.initializer.append(tensor)
    load(model, tmp_path)


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("raw", [True, False])
def test_packed_weights(tmp_path: Path, count: int, raw: bool) -> None:
    model = parse("out = Relu (x)")
    model.ir_version, model.opset_import[0].version = 10, 21
    tensor = helper.make_tensor(
        "v", TensorProto.INT4, [count], b"\x11" * ((count + 1) // 2) if raw else [1] * count, raw=raw
    )
    model.graph.initializer.append(tensor)
    load(model, tmp_path)
    if raw:
        model.graph.initializer[-1].raw_data += b"\x11"
        with pytest.raises(UserError, match="weight v"):
            load(model, tmp_path)


def test_open_shapes_are_no_damage(tmp_path: Path) -> None:
    model = parse("a = Add (x, w) out = Relu (a)")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    load(model, tmp_path)


@pytest.mark.parametrize("operator", ["MaxPool", "Relu", "Identity", "Transpose"])
def test_long_chains_need_no_recursion(tmp_path: Path, operator: str) -> None:
    net = Net()
    x = net.conv("images", "model.0")
    for _ in range(1500):
        x = net.op(operator, [x], **({"kernel_shape": [1, 1]} if operator == "MaxPool" else {}))
    net.head(net.conv(x, "model.1"))
    model = load(net.model(), tmp_path)
    report = preflight(model)
    assert report.passed and report.separate_q == {"image": 1, "known": 0, "avoidable": 0}
    assert to_dot(model).startswith("digraph")


def test_cycle_of_identities_ends() -> None:
    model = parse("a = Identity (b) b = Identity (a) out = Relu (x)")
    graph = OnnxGraph(model)
    assert not graph.is_constant("a") and graph.constant("b") is None


def test_constants_through_identities() -> None:
    graph = OnnxGraph(
        parse(
            "a = Identity (w) b = Identity (a) c = Identity (x) k = Constant <value_float = 2.0> () d = Identity (k) out = Relu (c)"
        )
    )
    assert [graph.is_constant(name) for name in ("b", "a", "w", "c", "x", "k", "d", "out", "c")] == [
        *(True, True, True, False, False),
        *(True, True, False, False),
    ]
    value = graph.constant("b")
    assert (
        value is not None
        and value.tolist() == [1, 2, 3, 4]
        and graph.constant("d") == 2
        and graph.constant("c") is None
    )
