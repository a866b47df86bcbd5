"""Scale groups on small graphs and modules: each family, the refusals, markers, who else reads a group."""

from __future__ import annotations

import inspect
import io
import logging

import onnx
import pytest
import torch
from onnx import parser
from torch import Tensor, nn

from quantization.onnx_graph.commuting import FAMILIES
from quantization.onnx_graph.graph import OnnxGraph
from quantization.placement import scale_groups as rules
from quantization.placement.scale_groups import MARKER_BASE, find_marked_classes, float_readers
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantAdd, QuantConv2d, QuantUpsample
from support.log_records import package_records

TORCHSCRIPT = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}


def parse(body: str, outputs: str = "float[1] out", initializers: str = "") -> OnnxGraph:
    """A graph of the given nodes; m0 to m4 are the constants of five markers."""
    markers = ", ".join(f"float m{number} = {{{MARKER_BASE + number}}}" for number in range(5))
    text = (
        f'<ir_version: 8, opset_import: ["" : 13]> test (float[1] x, float[1] y) => ({outputs}) '
        f"<{markers}{', ' if initializers else ''}{initializers}> {{ {body} }}"
    )
    return OnnxGraph(parser.parse_model(text))


def groups(graph: OnnxGraph) -> list[list[int]]:
    return [list(marked.markers) for marked in find_marked_classes(graph)]


# `a` and `b` are computed tensors; the family stands between them, a marker on each side
JOINING = {
    "Concat, first": "b = Concat <axis = 1> (a, c)",
    "Concat, second": "b = Concat <axis = 1> (c, a)",
    "MaxPool": "b = MaxPool <kernel_shape = [2, 2]> (a)",
    "Resize, nearest": 'b = Resize <mode = "nearest"> (a, none, scales)',
    "Resize, default mode": "b = Resize (a, none, scales)",
    "Upsample": 'b = Upsample <mode = "nearest"> (a, scales)',
    "Identity": "b = Identity (a)",
    "Transpose": "b = Transpose <perm = [0, 2, 1]> (a)",
    "Reshape": "b = Reshape (a, shape)",
    "Flatten": "b = Flatten (a)",
    "Squeeze": "b = Squeeze (a, shape)",
    "Unsqueeze": "b = Unsqueeze (a, shape)",
    "DepthToSpace": "b = DepthToSpace <blocksize = 2> (a)",
    "SpaceToDepth": "b = SpaceToDepth <blocksize = 2> (a)",
    "Slice": "b = Slice (a, shape, shape, shape, shape)",
    "Split, first": "b, d = Split <axis = 1> (a)",
    "Split, second": "d, b = Split <axis = 1> (a)",
    "Gather, constant": "b = Gather <axis = 1> (a, shape)",
    "Gather, constant behind Identity": "i = Identity (shape) b = Gather (a, i)",
}
REFUSING = {
    "Resize, linear": ('b = Resize <mode = "linear"> (a, none, scales)', "which makes values between the levels"),
    "Resize, cubic": ('b = Resize <mode = "cubic"> (a, none, scales)', "which makes values between the levels"),
    "AveragePool": ("b = AveragePool <kernel_shape = [2, 2]> (a)", "which makes values between the levels"),
    "GlobalAveragePool": ("b = GlobalAveragePool (a)", "which makes values between the levels"),
    "Add": ("b = Add (a, c)", "whose result needs a scale of its own"),
    "Mul": ("b = Mul (a, scales)", "whose result needs a scale of its own"),
    "BatchNormalization": ("b = BatchNormalization (a, c, c, c, c)", "whose result needs a scale of its own"),
    "Conv": ("b = Conv (a, scales)", "left in float"),
    "MatMul": ("b = MatMul (a, c)", "left in float"),
    "Gather, computed": ("b = Gather (a, c)", "Gather is not known to commute with Q/DQ"),
    "Pad": ("b = Pad (a, shape)", "Pad is not known to commute with Q/DQ"),
}
AROUND = (
    "a = Sigmoid (x) c = Sigmoid (y) q0 = Mul (a, m0) f0 = Conv (q0, scales) {} "
    "q1 = Mul (b, m1) f1 = Conv (q1, scales) out = Add (f0, f1)"
)
CONSTANTS = "float[1] scales = {2}, int64[1] shape = {1}, float[0] none = {}"


@pytest.mark.parametrize("name", JOINING)
def test_commuting_operations_join(name: str) -> None:
    graph = parse(AROUND.format(JOINING[name]), initializers=CONSTANTS)
    assert groups(graph) == [[0, 1]]
    assert float_readers(graph, find_marked_classes(graph)[0].tensors) == []


@pytest.mark.parametrize("name", REFUSING)
def test_other_operations_do_not_join_and_say_why(name: str) -> None:
    body, reason = REFUSING[name]
    graph = parse(AROUND.format(body), initializers=CONSTANTS)
    assert groups(graph) == [[0], [1]]
    operator = name.split(",")[0]
    assert float_readers(graph, find_marked_classes(graph)[0].tensors) == [
        f"Sigmoid also feeds {operator}, {reason}: one separate quantization"
    ]


def test_every_family_is_tested() -> None:
    assert {name.split(",")[0] for name in JOINING} == set(FAMILIES)


def test_fan_out_is_one_class() -> None:
    assert groups(
        parse("a = Sigmoid (x) q0 = Mul (a, m0) q1 = Mul (a, m1) q2 = Mul (y, m2) out = Sum (q0, q1, q2)")
    ) == [[0, 1], [2]]


def test_concat_of_slices_as_focus_and_reorg_make_it() -> None:
    body = (
        "a = Sigmoid (x) s = Slice (a, shape, shape, shape, shape) t = Slice (a, shape, shape, shape, shape) "
        "c = Concat <axis = 1> (s, t) q0 = Mul (c, m0) q1 = Mul (a, m1) out = Add (q0, q1)"
    )
    assert groups(parse(body, initializers=CONSTANTS)) == [[0, 1]]


def test_shape_computation_is_never_joined_with_data() -> None:
    # the second input of Reshape comes from y's shape by way of Gather, Unsqueeze and Concat
    body = (
        "q0 = Mul (y, m0) s = Shape (y) g = Gather (s, shape) u = Unsqueeze (g, shape) "
        "v = Concat <axis = 0> (u, shape) b = Reshape (x, v) q1 = Mul (b, m1) q2 = Mul (x, m2) "
        "out = Sum (q0, q1, q2)"
    )
    graph = parse(body, initializers=CONSTANTS)
    assert groups(graph) == [[0], [1, 2]]
    assert not {"s", "g", "u", "v"} & set(find_marked_classes(graph)[1].tensors)
    assert [float_readers(graph, marked.tensors) for marked in find_marked_classes(graph)] == [[], []]


def test_nets_that_share_a_constant_are_not_joined() -> None:
    body = (
        "a = Concat <axis = 1> (x, scales) b = Concat <axis = 1> (y, scales) q0 = Mul (a, m0) q1 = Mul (b, m1) "
        "out = Add (q0, q1)"
    )
    assert groups(parse(body, initializers=CONSTANTS)) == [[0], [1]]


@pytest.mark.parametrize(
    "marker",
    [
        f"c = Constant <value_float = {float(MARKER_BASE + 3)}> () q = Mul (x, c)",
        f"c = Constant <value = float {{{MARKER_BASE + 3}}}> () q = Mul (c, x)",
        f"c = Constant <value = float[1] {{{MARKER_BASE + 3}}}> () q = Mul (x, c)",
        f"c = Constant <value = double {{{MARKER_BASE + 3}}}> () q = Mul (x, c)",
        "q = Mul (x, m3)",
        "q = Mul (m3, x)",
        "i = Identity (m3) j = Identity (i) q = Mul (x, j)",
    ],
)
def test_a_marker_is_found_whatever_holds_its_constant(marker: str) -> None:
    graph = parse(marker + " out = Relu (q)")
    assert groups(graph) == [[3]]
    assert find_marked_classes(graph)[0].tensors == ("x",)


def test_other_multiplications_are_no_markers() -> None:
    body = "a = Mul (x, y) b = Mul (a, two) c = Mul (b, many) out = Relu (c)"
    assert (
        groups(parse(body, initializers=f"float two = {{2}}, float[2] many = {{{MARKER_BASE}, {MARKER_BASE}}}")) == []
    )


def test_tensors_of_a_module_that_is_called_twice_are_one_class() -> None:
    assert groups(parse("a = Mul (x, m0) b = Mul (y, m0) c = Mul (y, m1) d = Mul (x, m2) out = Sum (a, b, c, d)")) == [
        [0, 1, 2]
    ]


def test_output_of_the_network_is_told() -> None:
    graph = parse(
        "q0 = Mul (x, m0) a = Conv (q0, scales) out = Relu (a) q1 = Mul (out, m1) b = Relu (q1)", initializers=CONSTANTS
    )
    assert float_readers(graph, find_marked_classes(graph)[1].tensors) == [
        "Relu also feeds the network's output: one separate quantization"
    ]


# --- on torch modules -------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Two convolutions on one tensor, Upsample into a Concat, a sum, a float convolution, and a layer left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (self.quantized(3, 3) for _ in range(3))
        self.behind, self.unused = self.quantized(6, 3), self.quantized(3, 3)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.up.__class__ = QuantUpsample
        self.up.add_quantizers()
        self.pool = nn.MaxPool2d(2)
        self.addop = QuantAdd()
        self.head = nn.Conv2d(3, 2, 1)

    @staticmethod
    def quantized(inputs: int, outputs: int) -> nn.Conv2d:
        conv = nn.Conv2d(inputs, outputs, 1)
        conv.__class__ = QuantConv2d
        conv.add_quantizers()
        return conv

    def forward(self, x: Tensor) -> Tensor:
        a = torch.sigmoid(self.first(x))
        b = torch.sigmoid(self.second(a))
        c = self.behind(torch.cat((self.up(self.pool(b)), a), 1))
        return torch.cat((self.head(self.addop(a, c)), self.head(b), self.third(c)), 1)


def export(model: nn.Module) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(model.eval(), (torch.zeros(1, 3, 4, 4),), file, opset_version=13, **TORCHSCRIPT)
    return onnx.load_model_from_string(file.getvalue())


@pytest.fixture
def net() -> Net:
    quantizer.select_backend("native")
    torch.manual_seed(0)
    return Net()


def test_groups_of_a_torch_model(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    before = [place[3] for place in quantizer.named_quantizers(net)]
    with caplog.at_level(logging.INFO, logger="quantization"):
        found = rules.find_scale_groups(net, export)
    assert [group.names for group in found] == [("first",), ("second", "behind", "up", "addop"), ("third", "addop:1")]
    assert [place[3] for place in quantizer.named_quantizers(net)] == before
    assert not quantizer.is_enabled(quantizer.get_quantizer(net.unused)) and quantizer.is_enabled(
        quantizer.get_quantizer(net.first)
    )
    messages = [record.getMessage() for record in package_records(caplog)]
    assert "Rules: unused is left float: the inference graph does not use it" in messages
    assert any(line.endswith("also feeds head, left in float: one separate quantization") for line in messages)


def test_members_of_a_group_share_one_quantizer(net: Net) -> None:
    found = rules.find_scale_groups(net, export)
    rules.share_quantizers(net, found)
    shared = {
        quantizer.get_quantizer(net.second),
        quantizer.get_quantizer(net.behind),
        quantizer.get_quantizer(net.up),
        quantizer.get_quantizer(net.addop, quantizer.INPUT_NAMES[1]),
    }
    assert len(shared) == 1
    assert quantizer.get_quantizer(net.third) is quantizer.get_quantizer(net.addop, quantizer.INPUT_NAMES[2])
    assert quantizer.get_quantizer(net.first) not in shared
    weights = [
        quantizer.get_quantizer(module, quantizer.WEIGHT_NAME)
        for module in (net.first, net.second, net.third, net.behind)
    ]
    assert len(set(weights)) == 4
    places = [group.names for group in rules.shared_groups(net)]
    assert ("second", "behind", "up", "addop") in places and ("third", "addop:1") in places
