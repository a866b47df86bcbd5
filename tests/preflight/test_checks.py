"""The preflight's checks: each on a graph that breaks it and on its clean twin, in both exporters' forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Sequence

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantization.errors import UserError
from quantization.onnx_graph.module_path import path_matcher
from quantization.preflight.report import Report, preflight, report_text
from support.qdq_net import Net, checks, failing, single

ROOT = Path(__file__).resolve().parents[2]


# --- layers left in float, duplicates, outputs ------------------------------------------------------------------------


def test_unquantized_convolution(style: str) -> None:
    def build(ignore: Sequence[str], scale: float | None = None) -> Report:
        net = Net(style)
        x = net.conv(net.conv("images", "model.0"), "model.1.cv1", scale)
        net.head(net.conv(x, "model.10"))
        return preflight(net.model(), path_matcher(ignore, "--ignore"))

    report = build([])
    assert failing(report).check == "unquantized" and failing(report).layers == ["model.1.cv1"]
    assert failing(report).kernels == 1 and report.separate_q["avoidable"] == 1  # the Q behind it
    allowed = build([r"model\.1\.cv1"])
    assert allowed.passed and (checks(allowed, "warn"), checks(allowed, "known")) == (["float-producer"], ["image"])
    assert allowed.separate_q == {"image": 1, "known": 0, "avoidable": 1} and build([r"model\.1"]).passed
    assert build([r"model\.1"], 0.1).findings[0].check == "policy"
    assert build([r"model\.0\.cv1"], 0.1).passed  # no such layer: nothing to say
    with pytest.raises(UserError, match="regular expression"):
        build(["("])


def test_layer_names_come_from_scopes_where_weights_have_none(style: str) -> None:
    """The FP16 remainder renames weights; the path stays what an ignore policy matches."""
    net = Net(style)
    x = net.conv(net.conv("images", "model.0"), "model.1.cv1", None)
    net.head(net.conv(x, "model.10"))
    for tensor in net.initializers:
        tensor.name = tensor.name.replace(".weight", "_half")
    for node in net.nodes:
        node.input[:] = [name.replace(".weight", "_half") for name in node.input]
    assert failing(preflight(net.model())).layers == ["model.1.cv1"]


def test_half_quantized(style: str) -> None:
    report = single(style, quantize_weight=False)
    assert failing(report).check == "half-quantized" and "the weight of model.1" in failing(report).change
    assert report.int8_layers == 1 and report.type_changing == 2  # image, DQ in front of the convolution
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.op("Conv", [net.op("Softmax", [x]), net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)])
    net.head(net.conv(net.silu(y), "model.2"))
    assert failing(preflight(net.model())).check == "half-quantized"


def test_output_of_a_convolution_with_another_reader(style: str) -> None:
    def build(shared: bool) -> Report:
        net = Net(style)
        raw = net.conv(net.conv("images", "model.0"), "model.1", act="")
        x = (
            net.op("Concat", [net.silu(raw), net.op("Tanh", [raw]) if shared else net.silu(raw)], axis=1)
            if shared
            else net.silu(raw)
        )
        net.head(net.conv(x, "model.2", inside=8 if shared else 4))
        return preflight(net.model())

    assert failing(build(True)).check == "activation"
    assert build(False).passed


def test_pair_between_a_convolution_and_its_activation(style: str) -> None:
    net = Net(style)
    y = net.qdq(net.conv(net.conv("images", "model.0"), "model.1", act=""), 0.2)
    net.head(net.conv(net.silu(y), "model.2"))
    report = preflight(net.model())
    assert failing(report).check == "activation" and report.type_changing == 1  # the SiLU reads INT8 and emits INT8


def test_duplicates(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    for path in ("model.1", "model.2"):
        net.head(net.conv(x, path), path + "9")
    report = preflight(net.model())
    assert report.passed and checks(report, "warn") == ["duplicates"]
    net = Net(style)
    x = net.qdq(net.conv("images", "model.0"), 0.1)
    for path in ("model.1", "model.2"):
        y = net.op("Conv", [x, net.qdq(net.weight(path, 4), [0.1] * 4, axis=0)])
        net.head(net.silu(y), path + "9")
    assert checks(preflight(net.model()), "warn") == []
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(net.qdq(x, 0.1), "model.1", 0.1))
    assert checks(preflight(net.model()), "warn") == ["duplicates"]


def test_raw_outputs(style: str) -> None:
    def build(raw: bool) -> Report:
        net = Net(style)
        y = net.conv(net.conv("images", "model.0"), "model.9", scale=None, act="")
        five = net.op("Reshape", [y, net.constant(np.array([0, 2, 2, 8, 8]))])
        net.outputs.append((net.op("Reshape", [net.op("Sigmoid", [five]), net.constant(np.array([0, -1, 2]))]), 3))
        if raw:
            net.outputs.append((five, 5))
        return preflight(net.model((1, 4, 8, 8)))

    assert failing(build(True)).check == "outputs"
    assert build(False).passed


# --- the whole ---------------------------------------------------------------------------------------------------------


def test_macs(style: str) -> None:
    """By hand: the image is 8 x 8, every convolution 1 x 1."""
    net = Net(style)
    x = net.conv("images", "model.0", out=6)  # 8 * 8 * 4 * 6
    net.head(
        net.conv(net.op("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), "model.1", inside=6)
    )  # 4 * 4 * 6 * 4
    report = preflight(net.model())
    assert (report.int8_macs, report.macs) == (1536 + 384, 1536 + 384 + 256)
    unknown = preflight(unknown_shapes(net))
    assert "share of MACs unknown" in report_text(unknown) and (unknown.macs, unknown.uncounted) == (0, 3)


def test_linear_layer_with_a_transposed_weight(style: str) -> None:
    """The dynamo exporter writes Linear as MatMul with Transpose(DQ(Q(weight)))."""
    net = Net(style)
    x = net.op("Flatten", [net.conv("images", "model.0")])
    net.initializers.append(numpy_helper.from_array(np.ones((5, 256), np.float32), "model.model.1.fc.weight"))
    weight = net.op("Transpose", [net.qdq("model.model.1.fc.weight", [0.1] * 5, axis=0)], perm=[1, 0])
    net.outputs.append((net.op("MatMul", [net.qdq(x, 0.1), weight]), 2))
    report = preflight(net.model((1, 4, 8, 8)))
    assert report.passed and (report.int8_layers, report.layers) == (2, 2)
    assert report.int8_macs == 8 * 8 * 4 * 4 + 256 * 5
    assert preflight(net.model((1, 4, 8, 8)), {"model.1.fc"}.__contains__).findings[0].layers == ["model.1.fc"]


def unknown_shapes(net: Net) -> onnx.ModelProto:
    model = net.model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def test_text_and_order() -> None:
    net = Net()
    x = net.conv("images", "model.0")
    small = net.op("MaxPool", [x], kernel_shape=[4, 4], strides=[4, 4])
    y = net.conv(small, "model.1")
    for path, scale in (("model.2", 0.1), ("model.3", 0.2)):
        net.head(net.conv(y, path, scale), path + "9")
    for path, scale in (("model.4", 0.1), ("model.5", 0.2)):
        net.head(net.conv(x, path, scale), path + "9")
    net.head(net.conv(x, "model.6", 0.0), "model.69")
    report = preflight(net.model())
    assert [finding.check for finding in report.findings] == ["scales", "two-scales", "two-scales", "image"]
    assert report.findings[1].elements == 3 * 256 and report.findings[2].elements == 2 * 16
    lines = report_text(report).splitlines()
    assert lines[0].startswith("Preflight FAILED: 3 errors, 0 warnings, 1 known") and len(lines) == 3 + 2 * len(
        report.findings
    )
    assert all(line.startswith("      change: ") for line in lines[4::2])
    assert json.loads(json.dumps(report.to_dict()))["separate_q"] == report.separate_q
