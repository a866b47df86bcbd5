"""The preflight's checks of scales and pairs: each on a graph that breaks it and on its clean twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantization.engine.versions import highest_opset
from quantization.preflight.report import Report, preflight
from support.qdq_net import Net, checks, failing, failures, single


def test_clean_chain(style: str) -> None:
    report = single(style)
    assert report.passed and failures(report) == [] and checks(report, "warn") == []
    assert checks(report, "known") == ["image"]
    assert report.separate_q == {"image": 1, "known": 0, "avoidable": 0}
    assert (report.type_changing, report.requantize) == (1, 0)
    assert (report.int8_layers, report.layers) == (2, 3)


@pytest.mark.parametrize(
    "kernel, stride, quantized, act, findings, separate_q",
    [
        (6, 1, True, "silu", {"warn": [], "known": ["image"]}, {"image": 1, "known": 0, "avoidable": 0}),
        (6, 2, True, "silu", {"warn": ["stem"], "known": ["image"]}, {"image": 1, "known": 0, "avoidable": 0}),
        (3, 2, True, "silu", {"warn": [], "known": ["image"]}, {"image": 1, "known": 0, "avoidable": 0}),
        (6, 2, False, "Relu", {"warn": [], "known": ["float-producer"]}, {"image": 0, "known": 1, "avoidable": 0}),
        # as other tools export it: in FP32 (onnx_cleanup.respell_float_silu)
        (6, 2, False, "silu", {"warn": ["float-producer"], "known": []}, {"image": 0, "known": 0, "avoidable": 1}),
    ],
)
def test_stem(
    style: str,
    kernel: int,
    stride: int,
    quantized: bool,
    act: str,
    findings: dict[str, list[str]],
    separate_q: dict[str, int],
) -> None:
    net = Net(style)
    x = net.conv("images", "model.0", 0.1 if quantized else None, act, stride=stride, kernel=kernel)
    net.head(net.conv(x, "model.1"))
    report = preflight(net.model())
    assert report.passed and report.separate_q == separate_q
    assert {severity: checks(report, severity) for severity in findings} == findings


LEAKY, SWISH = ("LeakyRelu",), ("HardSigmoid", "Mul")
STEM = {"image": 1, "known": 0, "avoidable": 0}


@pytest.mark.parametrize("operators", [LEAKY, SWISH, ("Elu",), ("Softplus", "Mul")])
@pytest.mark.parametrize("stride", [1, 2])
def test_pair_before_an_activation_that_is_not_fused(style: str, stride: int, operators: tuple[str, ...]) -> None:
    """At the stem as it should be; elsewhere a warning for all layers together. Neither costs a conversion."""

    def activated(net: Net, x: str, scale: float | None) -> str:
        y = x if scale is None else net.qdq(x, scale)
        z = net.op(operators[0], [y])
        return net.op("Mul", [y, z]) if len(operators) > 1 else z

    def build(stem: float | None, others: float | None, kernel: int = 3) -> Report:
        net = Net(style)
        x = activated(net, net.conv("images", "model.0", act="", stride=stride, kernel=kernel), stem)
        for number in (1, 2):
            x = activated(net, net.conv(x, f"model.{number}", 0.2, act=""), others)
        net.head(net.conv(x, "model.3", 0.3))
        return preflight(net.model())

    report = build(0.4, None)
    assert report.passed and checks(report, "warn") == [] and sorted(checks(report, "known")) == ["activation", "image"]
    assert report.separate_q == STEM and (report.type_changing, report.requantize) == (1, 0)
    (known,) = (finding for finding in report.findings if finding.check == "activation")
    assert known.layers[0] == "model.0" and known.kernels == 1
    report = build(0.4, 0.5)
    assert report.passed and report.separate_q == STEM and (report.type_changing, report.requantize) == (1, 0)
    (warned,) = (finding for finding in report.findings if finding.severity == "warn")
    assert (warned.check, warned.layers, warned.kernels) == ("activation", ["model.1", "model.2"], 2)
    report = build(None, None)
    stems = [finding for finding in report.findings if finding.check == "stem"]
    assert len(stems) == (stride > 1) and all("--activation-pairs stem" in finding.change for finding in stems)
    for pair in (0.4, None):  # which does not help a large kernel
        large = [finding for finding in build(pair, None, kernel=6).findings if finding.check == "stem"]
        assert len(large) == (stride > 1) and all("--activation-pairs" not in finding.change for finding in large)


@pytest.mark.parametrize("operators", [("Relu",), ("Sigmoid", "Mul")])
def test_pair_before_an_activation_that_is_fused(style: str, operators: tuple[str, ...]) -> None:
    net = Net(style)
    x = net.qdq(net.conv("images", "model.0", act="", stride=2), 0.4)
    y = net.op(operators[0], [x])
    net.head(net.conv(net.op("Mul", [x, y]) if len(operators) > 1 else y, "model.1", 0.2))
    report = preflight(net.model())
    assert failures(report) == ["activation"] and checks(report, "warn") == []


def test_a_file_that_tensorrt_8_cannot_read_is_not_warned_of_it(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0", None, "silu", stride=2)
    net.head(net.conv(x, "model.1"))
    model = net.model()
    assert highest_opset((8, 6, 0)) < 18
    for opset, severity in ((17, "warn"), (18, "warn"), (19, "known")):
        model.opset_import[0].version = opset
        assert checks(preflight(model), severity) == ["float-producer"]


def test_float_stem_without_stride_fails(style: str) -> None:
    net = Net(style)
    net.head(net.conv(net.conv("images", "model.0", None), "model.1"))
    assert failures(preflight(net.model())) == ["unquantized"]


def test_head_with_a_quantized_input_and_a_float_weight(style: str) -> None:
    """One Reformat; with a float input the tensor would be emitted in float and a Q kernel follow."""

    def build(scale: float | None) -> Report:
        net = Net(style)
        x = net.conv("images", "model.0")
        net.head(x, "model.8", scale)
        net.head(net.conv(x, "model.1", 0.1))
        return preflight(net.model())

    report = build(0.1)
    assert report.passed and sorted(checks(report, "known")) == ["float-weight", "image"]
    assert (report.separate_q["known"], report.separate_q["avoidable"], report.type_changing) == (0, 0, 2)
    report = build(None)
    assert sorted(checks(report, "known")) == ["image", "mixed-readers"]
    assert (report.separate_q["known"], report.separate_q["avoidable"], report.type_changing) == (1, 0, 2)
    report = build(0.2)  # another scale than the INT8 reader's
    assert failures(report) == ["two-scales"]


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan"), float("inf")])
def test_scale_that_stops_the_build(style: str, scale: float) -> None:
    report = single(style, scale=scale)
    assert failures(report) == ["scales"]
    assert report.findings[0].layers == ["model.1"] and "Scale coefficients" in report.findings[0].what


def test_zero_weight_scale_of_one_channel(style: str) -> None:
    assert failures(single(style, weight_scale=[0.1, 0.1, 0.0, 0.1])) == ["scales"]
    assert failures(single(style, weight_scale=[0.1, 0.1, 0.2, 0.1])) == []


def test_weight_granularity(style: str) -> None:
    assert "axis 1" in failing(single(style, weight_axis=1)).what
    report = single(style, weight_scale=0.1)
    assert report.passed and checks(report, "warn") == ["scales"]


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(zero=3), "zero point is not 0"),
        (dict(dtype=np.uint8), "uint8"),
        (dict(with_zero=False), "uint8"),
        (dict(dq_scale=0.2), "different scales"),
    ],
)
def test_halves_of_a_pair(style: str, options: dict[str, Any], text: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.op("Conv", [net.qdq(x, 0.1, **options), net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)])
    net.head(net.silu(y))
    assert text in failing(preflight(net.model())).what


def test_activation_scale_per_channel(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.op("Conv", [net.qdq(x, [0.1, 0.2, 0.3, 0.4]), net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)])
    net.head(net.silu(y))
    assert "per channel" in failing(preflight(net.model())).what


def test_computed_scale(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    scale = net.op("ReduceMax", [x], keepdims=0)
    zero = net.constant(np.asarray(0, np.int8))
    q = net.op("QuantizeLinear", [x, scale, zero])
    y = net.op(
        "Conv", [net.op("DequantizeLinear", [q, scale, zero]), net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)]
    )
    net.head(net.silu(y))
    assert "scales" in failures(preflight(net.model()))


def test_quantized_bias(style: str) -> None:
    net = Net(style)
    bias = net.op(
        "DequantizeLinear", [net.constant(np.zeros(4, np.int32)), net.constant(np.full(4, 0.1, np.float32))], axis=0
    )
    x = net.conv("images", "model.0")
    net.head(net.conv(x, "model.1", bias=bias))
    assert "the bias is quantized" in failing(preflight(net.model())).what


def test_operator_between_q_and_dq(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    scale, zero = net.constant(np.asarray(0.1, np.float32)), net.constant(np.asarray(0, np.int8))
    pooled = net.op("MaxPool", [net.op("QuantizeLinear", [x, scale, zero])], kernel_shape=[2, 2])
    y = net.op(
        "Conv",
        [net.op("DequantizeLinear", [pooled, scale, zero]), net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)],
    )
    net.head(net.silu(y))
    assert "a Q without DQ" in failing(preflight(net.model())).what


def test_weight_stored_in_int8_is_quantized(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    weight = net.op(
        "DequantizeLinear",
        [
            net.constant(np.ones((4, 4, 1, 1), np.int8)),
            net.constant(np.full(4, 0.1, np.float32)),
            net.constant(np.zeros(4, np.int8)),
        ],
        axis=0,
    )
    net.head(net.silu(net.op("Conv", [net.qdq(x, 0.1), weight])))
    report = preflight(net.model())
    assert report.passed and report.int8_layers == 2
