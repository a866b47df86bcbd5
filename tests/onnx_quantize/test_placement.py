"""Where Q/DQ go in the blocks of newer detectors, and in graphs that nobody has seen."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import onnx
import pytest

from quantization.errors import UserError
from quantization.onnx_quantize.placement import BRANCHED_HEAD, choose_plan
from quantization.onnx_quantize.plan import Plan, place_names, planned_graph
from quantization.options import LayerOptions
from quantization.preflight.conversions import check_conversions
from quantization.preflight.layer_checks import check_float_layers
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.subject import Subject
from support.float_nets import SIDE, FloatNet, detector, finished
from support.qdq_net import STYLES

HEAD = ["model.9.cv2.2", "model.9.cv3.2", "model.9.dfl.conv"]


def planned(model: onnx.ModelProto, **options: object) -> tuple[QdqGraph, Plan]:
    graph = QdqGraph(model)
    return graph, choose_plan(graph, LayerOptions(**options))  # type: ignore[arg-type]


def findings(graph: QdqGraph, plan: Plan) -> list[str]:
    """What preflight finds wrong with a plan."""
    subject = Subject(planned_graph(graph, plan), set(map(graph.layer, plan.reasons)).__contains__)
    found = [*check_conversions(subject), *check_float_layers(subject)]
    return [f"{item.check}: {item.what}" for item in found if item.severity == "fail"]


def float_layers(graph: QdqGraph, plan: Plan) -> list[str]:
    return sorted(map(graph.layer, plan.reasons))


@pytest.mark.parametrize("style", STYLES)
def test_c2f_attention_and_head(style: str) -> None:
    graph, plan = planned(detector(style=style), head="float")
    assert float_layers(graph, plan) == sorted(["model.0.conv", "model.2.attn.pe.conv", *HEAD])
    assert findings(graph, plan) == []
    groups = [set(place_names(graph, reads)) for reads in plan.groups(graph)]
    c2f = {"model.1.m.0.cv1.conv", "model.1.m.0", "model.1.m.1.cv1.conv", "model.1.m.1", "model.1.cv2.conv"}
    assert c2f in groups  # both halves, every shortcut and the Concat carry one scale
    branches = [group for group in groups if any(name.endswith(":1") for name in group)]
    assert branches == [{"model.1.m.0:1"}, {"model.1.m.1:1"}]  # scales of their own; attention's: see below
    assert any(len(group) == 3 and {"model.2.cv1.conv", "model.5.conv"} < group for group in groups)  # over the Resize


def test_a_depthwise_convolution_in_attention_would_cost_a_kernel() -> None:
    """What the plan avoids: with its Q, the position's convolution keeps qkv's output in two forms."""
    graph, plan = planned(detector())
    position = next(p for p in plan.reasons if graph.layer(p) == "model.2.attn.pe.conv")
    reasons = {other: why for other, why in plan.reasons.items() if other != position}
    worse = dataclasses.replace(plan, weights=tuple(sorted((*plan.weights, position))), reasons=reasons)
    assert any(line.startswith("mixed-readers") for line in findings(graph, worse))


def read_in_int8(graph: QdqGraph, plan: Plan, position: int) -> list[str]:
    """The operators that make those operands of a sum that get Q/DQ."""
    reads = [read for read in plan.reads(graph) if read.node == position]
    return [graph.nodes[graph.producer[read.tensor]].op_type for read in reads]


def sums(*operands: str, spare: bool = False) -> tuple[QdqGraph, Plan, int]:
    """A sum of convolutions ("" without an activation) between two layers; another layer may read the last operand too."""
    net = FloatNet()
    x = net.layer(net.stem(), "model.1.conv", 8, 8)
    made = [net.layer(x, f"model.{2 + number}.conv", 8, 8, act) for number, act in enumerate(operands)]
    total = net.op("Add", made, "model/4")
    if spare:
        total = net.op("Concat", [total, net.layer(made[-1], "model.5.conv", 8, 8)], axis=1)
    net.head(net.layer(total, "model.6.conv", 16 if spare else 8, 4))
    graph, plan = planned(finished(net))
    (position,) = plan.sums
    return graph, plan, position


def test_a_convolution_without_activation_takes_the_sum_into_its_kernel() -> None:
    """In attention, the convolutions before both sums: only the shortcut is quantized, and nothing is converted."""
    graph, plan = planned(detector())
    found = {graph.nodes[position].name: read_in_int8(graph, plan, position) for position in plan.sums}
    assert sorted(found.values()) == [["Add"], ["Add", "Mul"], ["Split"], ["Split", "Mul"]]
    assert findings(graph, plan) == []
    graph, plan, position = sums("silu", "")
    assert read_in_int8(graph, plan, position) == ["Mul"] and findings(graph, plan) == []


@pytest.mark.parametrize("operands, spare", [(("silu", "silu"), False), (("", ""), False), (("silu", ""), True)])
def test_other_sums_read_both_operands_in_int8(operands: tuple[str, str], spare: bool) -> None:
    graph, plan, position = sums(*operands, spare=spare)
    assert len(read_in_int8(graph, plan, position)) == 2 and findings(graph, plan) == []


def test_a_sum_behind_shapes_that_the_graph_computes_is_quantized() -> None:
    """Attention in an export with open sides: it reshapes by what Shape, Gather, Mul and Concat make."""
    net = FloatNet("dynamo")  # onnx follows a Shape of opset 15 and newer
    x = net.layer(net.stem(), "model.1.conv", 8, 8)
    query, shape = net.layer(x, "model.2.qkv", 8, 8, act=""), net.op("Shape", [x])
    sides = [net.op("Gather", [shape, net.constant(np.array([axis]))], axis=0) for axis in range(4)]
    flat = net.op("Concat", [*sides[:2], net.op("Mul", sides[2:])], axis=0)
    share = net.op("Softmax", [net.op("Reshape", [query, flat])], axis=2)
    maps = net.op("Reshape", [share, net.op("Concat", sides, axis=0)])
    total = net.op("Add", [x, net.layer(maps, "model.2.proj", 8, 8, act="")], "model/3")
    net.head(net.layer(total, "model.4.conv", 8, 4))
    graph, plan = planned(finished(net))
    assert list(map(graph.layer, plan.sums)) == ["model.3"]
    assert findings(graph, plan) == []


@pytest.mark.parametrize("head, inputs", [("input", HEAD[:2]), ("float", []), ("shared", []), ("int8", [])])
def test_choices_of_a_head_with_branches(head: str, inputs: list[str]) -> None:
    graph, plan = planned(detector(), head=head)
    assert [graph.layer(position) for position in plan.inputs] == inputs
    assert (set(HEAD[:2]) <= set(map(graph.layer, plan.weights))) == (head == "int8")
    if head == BRANCHED_HEAD:
        assert planned(detector())[1] == plan


def shared_head(maps: int = 2) -> onnx.ModelProto:
    """yolov5's head: the tensors that it reads are read by other layers too, but for the last; the first is larger."""
    net = FloatNet()
    x = net.stem()
    for level in range(maps):
        x = net.layer(x, f"model.{level + 1}.conv", 8, 8, kernel=3, strides=[2, 2])
        net.outputs.append((net.layer(x, f"model.9.m.{level}", 8, 6, act=""), 4))
    return finished(net)


@pytest.mark.parametrize(
    "head, inputs, weights",
    [
        ("auto", ["model.9.m.0"], []),
        ("shared", ["model.9.m.0", "model.9.m.1"], []),
        ("float", [], []),
        ("input", ["model.9.m.0", "model.9.m.1", "model.9.m.2"], []),
        ("int8", [], ["model.9.m.0", "model.9.m.1", "model.9.m.2"]),
    ],
)
def test_choices_of_the_head(head: str, inputs: list[str], weights: list[str]) -> None:
    graph, plan = planned(shared_head(3), head=head)
    assert [graph.layer(position) for position in plan.inputs] == inputs
    assert [name for name in map(graph.layer, plan.weights) if ".9." in name] == weights


@pytest.mark.parametrize(
    "kernel, stride, by_itself",
    [(6, 2, True), (4, 2, True), (3, 2, False), (1, 2, False), (3, 1, False), (6, 1, False)],
)
@pytest.mark.parametrize("act", ["silu", "LeakyRelu"])
def test_choices_of_the_stem(kernel: int, stride: int, by_itself: bool, act: str) -> None:
    net = FloatNet()
    x = net.layer("images", "model.0.conv", 3, 4, act, kernel=kernel, strides=[stride] * 2)
    net.head(net.layer(x, "model.1.conv", 4, 4))
    for stem, is_float in (("auto", by_itself), ("float", True), ("int8", False)):
        graph, plan = planned(finished(net), stem=stem)
        assert ("model.0.conv" in float_layers(graph, plan)) == is_float
        assert bool(plan.outputs) == (act == "LeakyRelu" and not is_float)
    graph, plan = planned(finished(net), activation_pairs="none")
    split = act == "LeakyRelu" and stride > 1  # slower than float
    assert ("model.0.conv" in float_layers(graph, plan)) == (by_itself or split) and plan.outputs == ()


def activations(stride: int = 2) -> onnx.ModelProto:
    """A stem with LeakyReLU, Hardswish in two operators, ReLU, LeakyReLU behind a Concat, LeakyReLU; a head."""
    net = FloatNet()
    x = net.layer("images", "model.0.conv", 3, 8, "LeakyRelu", kernel=3, strides=[stride] * 2)
    y = net.layer(x, "model.1.conv", 8, 8, "")
    y = net.op("Mul", [y, net.op("HardSigmoid", [y])])
    z = net.layer(y, "model.2.conv", 8, 8, "Relu")
    z = net.op("LeakyRelu", [net.op("Concat", [net.layer(z, f"model.{n}.conv", 8, 8, "") for n in (3, 5)], axis=1)])
    net.head(net.layer(z, "model.4.conv", 16, 4, "LeakyRelu"))
    return finished(net)


@pytest.mark.parametrize(
    "options, paired, is_float",
    [
        ({}, ["model.0.conv"], False),
        ({"activation_pairs": "none"}, [], True),
        ({"activation_pairs": "stem"}, ["model.0.conv"], False),
        ({"activation_pairs": "stem", "stem": "int8"}, ["model.0.conv"], False),
        ({"activation_pairs": "stem", "stem": "float"}, [], True),
        ({"activation_pairs": "stem", "ignore_policy": (r"model\.0\.conv",)}, [], True),
        ({"activation_pairs": "all"}, ["model.0.conv", "model.1.conv", "model.4.conv"], False),
        ({"activation_pairs": "all", "stem": "float"}, ["model.1.conv", "model.4.conv"], True),
    ],
)
def test_pairs_before_activations(options: dict[str, object], paired: list[str], is_float: bool) -> None:
    graph, plan = planned(activations(), **options)
    assert [graph.layer(position) for position in plan.outputs] == paired
    assert ("model.0.conv" in float_layers(graph, plan)) == is_float
    assert findings(graph, plan) == []
    reads = plan.reads(graph)
    behind = {graph.nodes[position].output[0]: position for position in plan.outputs}
    assert {read.tensor for read in reads} >= set(behind)
    for tensor, position in behind.items():  # all that read it, Mul and HardSigmoid; a scale of its own
        (group,) = (group for group in plan.groups(graph) if any(read.tensor == tensor for read in group))
        assert sorted((read.node, read.index) for read in group) == sorted(
            (read.node, read.index) for read in graph.readers[tensor]
        )
        assert len(group) == (2 if graph.layer(position) == "model.1.conv" else 1)


def test_a_stem_without_a_stride_or_with_silu() -> None:
    graph, plan = planned(activations(stride=1), activation_pairs="stem")
    assert [graph.layer(position) for position in plan.outputs] == ["model.0.conv"]
    graph, plan = planned(detector(), activation_pairs="all")
    assert plan.outputs == () and "model.0.conv" in float_layers(graph, plan)


def test_no_pair_where_something_else_reads_the_convolution() -> None:
    net = FloatNet()
    x = net.layer("images", "model.0.conv", 3, 8, "", kernel=3)
    x = net.op("Concat", [x, net.op("LeakyRelu", [x])], axis=1)
    net.head(net.layer(x, "model.1.conv", 16, 4))
    assert planned(finished(net), activation_pairs="all")[1].outputs == ()


def test_policy_of_layers_modules_and_sums() -> None:
    graph, plan = planned(detector(), ignore_policy=(r"model\.5", r"model\.1\.m\.1"))
    assert {"model.5.conv", "model.1.m.1.cv1.conv", "model.1.m.1.cv2.conv"} <= set(float_layers(graph, plan))
    assert "model.1.m.1" not in [graph.layer(position) for position in plan.sums]
    assert "model.1.m.0" in [graph.layer(position) for position in plan.sums]
    for pattern, message in (("nothing", "matches no layer"), ("(", "no regular expression")):
        with pytest.raises(UserError, match=message):
            planned(detector(), ignore_policy=(pattern,))


def test_average_pool_runs_in_int8_and_bilinear_resize_does_not() -> None:
    """YOLOv9's ADown: a pool on a tensor that a Concat reads too."""
    net = FloatNet()
    x = net.layer(net.stem(), "model.1.conv", 8, 8)
    pooled = net.op("AveragePool", [x], kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])
    a, b = net.halves(pooled, 8)
    a = net.layer(a, "model.2.conv", 4, 4)
    b = net.layer(net.op("MaxPool", [b], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "model.3.conv", 4, 4)
    y = net.layer(net.op("Concat", [a, b, x], axis=1), "model.4.conv", 16, 8)
    net.head(net.layer(net.resize(y, "linear"), "model.5.conv", 8, 4))
    graph, plan = planned(finished(net))
    assert len(plan.pools) == 1 and plan.resizes == () and findings(graph, plan) == []


def test_what_is_not_understood_stays_float_with_a_reason() -> None:
    net = FloatNet()
    x = net.layer(net.stem(), "model.1.conv", 8, 8)
    weight = net.op("Mul", [net.weight("model.2.conv", 8, 8), net.constant(np.float32(0.1))])
    x = net.op("Relu", [net.op("Conv", [x, weight], "model/2/conv")])
    net.initializers.append(onnx.numpy_helper.from_array(np.ones((8, 2, 2, 2), np.float32), "model.3.weight"))
    x = net.op("ConvTranspose", [x, "model.3.weight"], "model/3", group=4, strides=[2, 2], kernel_shape=[2, 2])
    net.head(net.layer(x, "model.4.conv", 8, 4))
    graph, plan = planned(finished(net))
    reasons = {graph.layer(position): reason for position, reason in plan.reasons.items()}
    assert any("computed" in reason for name, reason in reasons.items() if name not in ("model.0.conv", "model.3"))
    assert "transposed convolution in groups" in reasons["model.3"]
    assert [graph.layer(position) for position in plan.weights] == ["model.1.conv", "model.4.conv"]


def random_detector(seed: int) -> onnx.ModelProto:
    """Blocks in any order on tensors of one shape; every tensor that nothing reads goes to a head."""
    rng, net = random.Random(seed), FloatNet()
    tensors = [net.stem()]
    for step in range(rng.randint(4, 16)):
        kind = rng.choice(["conv", "conv", "depthwise", "sum", "concat", "pool", "average", "gate", "split"])
        x, y = rng.choice(tensors[-4:]), rng.choice(tensors[-4:])
        name = f"model.{step + 1}.conv"
        if kind == "conv":
            tensors.append(net.layer(x, name, 8, 8, act=rng.choice(["silu", ""])))
        elif kind == "depthwise":
            tensors.append(net.layer(x, name, 8, 8, group=8, kernel=3))
        elif kind == "sum":
            tensors.append(net.op("Add", [x, net.layer(y, name, 8, 8)], f"model/{step + 1}/sum"))
        elif kind == "concat":
            tensors.append(net.layer(net.op("Concat", [x, y], axis=1), name, 16, 8))
        elif kind == "pool":
            tensors.append(net.op("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif kind == "average":
            tensors.append(net.op("AveragePool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif kind == "gate":
            tensors.append(net.op("Mul", [x, net.op("Sigmoid", [net.op("GlobalAveragePool", [x])])]))
        else:
            tensors.append(net.op("Concat", net.halves(x, 8)[::-1], axis=1))
    read = {name for node in net.nodes for name in node.input}
    for number, tensor in enumerate(tensor for tensor in tensors if tensor not in read):
        net.outputs.append((net.layer(tensor, f"model.{20 + number}.m", 8, 4, act=""), 4))
    return finished(net)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_cost_no_conversion_but_around_what_must_be_float(seed: int) -> None:
    """Nothing is requantized, no sum is half quantized; a Q kernel of its own stands only where a layer needs float."""
    graph, plan = planned(random_detector(seed))
    assert plan.weights or len(plan.reasons) == len([n for n in graph.nodes if n.op_type == "Conv"])
    subject = Subject(planned_graph(graph, plan), set(map(graph.layer, plan.reasons)).__contains__)
    for conversion in subject.propagation.conversions:
        assert conversion.kind != "requantize" and conversion.reason not in ("sum", "two scales")
        if conversion.reason == "mixed readers":
            ends = subject.propagation.end_readers(conversion.tensor, None)
            names = {"graph output" if end < 0 else graph.nodes[end].op_type for end in ends}
            allowed = {"Mul", "GlobalAveragePool", "Conv", "Add", "AveragePool", "Concat", "MaxPool", "Split"}
            assert names <= allowed


def test_shapes_that_differ_make_no_shortcut() -> None:
    net = FloatNet()
    x = net.layer(net.stem(), "model.1.conv", 8, 8)
    gate = net.layer(net.op("GlobalAveragePool", [x]), "model.2.conv", 8, 8)
    net.head(net.layer(net.op("Add", [x, gate], "model/3"), "model.4.conv", 8, 4))
    model = onnx.shape_inference.infer_shapes(finished(net))
    assert model.graph.input[0].type.tensor_type.shape.dim[2].dim_value == SIDE
    assert planned(model)[1].sums == ()
