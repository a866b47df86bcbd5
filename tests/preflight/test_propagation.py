"""The prediction of TensorRT's conversions, on a graph that costs some and on its clean twin, in both exporters' forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantization.preflight.report import Report, preflight
from support.qdq_net import STYLES, Net, checks, failing, failures, pyramid


def fork(style: str, over: str, scales: tuple[float, float]) -> Report:
    """A convolution read by two others, by the second behind an operation."""
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(x, "model.1", scales[0]), "model.8")
    y = {
        "direct": lambda: x,
        "maxpool": lambda: net.op("MaxPool", [x], kernel_shape=[2, 2]),
        "nearest": lambda: net.resize(x),
        "transpose": lambda: net.op("Transpose", [x], perm=[0, 1, 3, 2]),
        "slice": lambda: net.op("Slice", [x, *(net.constant(np.array([v])) for v in (0, 4, 2))]),
        "concat": lambda: net.op("Concat", [x, net.conv(x, "model.2", scales[0])], axis=2),
    }[over]()
    net.head(net.conv(y, "model.3", scales[1]), "model.9")
    return preflight(net.model())


@pytest.mark.parametrize("over", ["direct", "maxpool", "nearest", "transpose", "slice", "concat"])
def test_two_scales(style: str, over: str) -> None:
    broken = fork(style, over, (0.1, 0.2))
    finding = failing(broken)
    assert finding.check == "two-scales" and finding.kernels == 2
    assert {"model.1", "model.3"} <= set(finding.layers) and "0.1 by" in finding.what and "0.2 by" in finding.what
    assert broken.separate_q["avoidable"] == 2 and broken.type_changing == 3
    clean = fork(style, over, (0.1, 0.1))
    assert clean.passed and clean.type_changing == 1


def test_pointwise_layer_behind_the_image_takes_its_q(style: str) -> None:
    net = Net(style)
    net.head(net.conv(net.op("Mul", ["images", net.constant(np.asarray(1 / 255, np.float32))]), "model.0"))
    report = preflight(net.model())
    assert report.passed and report.separate_q == {"image": 0, "known": 0, "avoidable": 0}


def test_interpolation_does_not_commute(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(net.resize(x, "linear"), "model.1"))
    report = preflight(net.model())
    assert report.passed and checks(report, "known") == ["float-producer", "image"]
    assert report.separate_q == {"image": 1, "known": 1, "avoidable": 0}


def test_head_reader_is_known_another_float_reader_is_not(style: str) -> None:
    def build(second: str) -> Report:
        net = Net(style)
        x = net.conv("images", "model.0")
        y = net.conv(x, "model.1")
        if second == "head":
            net.head(x, "model.8")
        else:
            y = net.op("Add", [y, net.op("Softmax", [x])])
        net.head(net.conv(y, "model.2"))
        return preflight(net.model())

    known = build("head")
    assert known.passed and known.separate_q == {"image": 1, "known": 1, "avoidable": 0}
    assert sorted(checks(known, "known")) == ["image", "mixed-readers"]
    broken = build("softmax")
    assert failing(broken).check == "mixed-readers" and broken.separate_q["avoidable"] == 1


def test_an_interpolating_resize_is_a_known_float_reader(style: str) -> None:
    """It reads the tensor in float beside an INT8 convolution; a nearest one would move the levels and is none."""
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.conv(x, "model.1")
    net.head(net.conv(y, "model.2"))
    net.head(net.conv(net.resize(x, "linear"), "model.3"), "model.8")
    report = preflight(net.model())
    assert not report.failed and "mixed-readers" in checks(report, "known")


def concat(style: str, first: float, second: float) -> Report:
    """A Concat read by two convolutions."""
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.op(
        "Concat", [net.conv(x, "model.1", act="LeakyRelu"), net.conv(x, "model.2", act="Relu")], "model.3", axis=1
    )
    for path, scale in (("model.4", first), ("model.5", second)):
        net.head(net.conv(y, path, scale, inside=8), path + "9")
    return preflight(net.model())


def test_concat(style: str) -> None:
    broken = concat(style, 0.1, 0.2)
    assert failing(broken).check == "concat" and "model.3" in failing(broken).what
    assert concat(style, 0.1, 0.1).passed


def upsample(style: str, scale: float) -> Report:
    """The P4 path of yolov5: a quantized Upsample and a lateral into one Concat."""
    net = Net(style)
    lateral = net.conv("images", "model.0")
    deep = net.conv(net.op("MaxPool", [net.conv(lateral, "model.1")], kernel_shape=[2, 2], strides=[2, 2]), "model.2")
    y = net.op("Concat", [net.resize(net.qdq(deep, scale)), lateral], "model.3", axis=1)
    net.head(net.conv(y, "model.4", 0.1, inside=8))
    return preflight(net.model())


def test_concat_that_loses_a_lateral(style: str) -> None:
    """The published pairs leave yolov7's 81 and 82 apart behind Concat 80: conv 63 loses its INT8 output too."""
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(x, "model.1"))
    y = net.op("Concat", [net.conv(x, "model.2"), x], "model.3", axis=1)
    for path, scale in (("model.4", 0.1), ("model.5", 0.2)):
        net.head(net.conv(y, path, scale, inside=8), path + "9")
    report = preflight(net.model())
    assert failures(report) == ["concat", "concat"] and report.separate_q["avoidable"] == 3
    assert any("in float by model.3" in finding.what for finding in report.findings)


def test_shapes_are_no_images(style: str) -> None:
    """A Reshape to a computed shape, as exporters write for open sizes, commutes all the same."""
    net = Net(style)
    x = net.conv("images", "model.0")
    batch = net.op("Slice", [net.op("Shape", [x]), net.constant(np.array([0])), net.constant(np.array([1]))])
    shape = net.op("Concat", [batch, net.constant(np.array([4, 8, -1]))], axis=0)
    net.head(net.conv(net.op("Reshape", [net.qdq(x, 0.1), shape]), "model.1"))
    report = preflight(net.model((1, 4, 8, 8)))
    assert report.passed and report.type_changing == 1 and report.requantize == 0


def test_average_pool_and_graph_output(style: str) -> None:
    net = Net(style)
    x = net.op("AveragePool", [net.qdq(net.conv("images", "model.0"), 0.1)], kernel_shape=[2, 2])
    net.head(net.conv(x, "model.1", 0.2))
    assert preflight(net.model()).passed
    net.outputs.append((net.qdq(net.conv(x, "model.2", 0.2), 0.3), 4))
    finding = failing(preflight(net.model()))
    assert finding.check == "float-reader" and finding.layers == ["graph output"]


def test_requantize(style: str) -> None:
    broken = upsample(style, 0.2)
    assert failing(broken).check == "concat" and (broken.requantize, broken.type_changing) == (1, 1)
    clean = upsample(style, 0.1)
    assert clean.passed and clean.requantize == 0
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(net.op("MaxPool", [net.qdq(x, 0.2)], kernel_shape=[2, 2]), "model.1", 0.1))
    report = preflight(net.model())
    assert failing(report).check == "requantize" and report.requantize == 1


def test_dq_moves_forward_to_a_convolution(style: str) -> None:
    net = Net(style)
    x = net.op("MaxPool", [net.qdq(net.conv("images", "model.0"), 0.1)], kernel_shape=[2, 2])
    net.head(net.silu(net.op("Conv", [x, net.qdq(net.weight("model.1", 4), [0.1] * 4, axis=0)])))
    report = preflight(net.model())
    assert report.passed and report.int8_layers == 2 and report.type_changing == 1


def test_dq_in_front_of_a_float_operation(style: str) -> None:
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.op("Softmax", [net.qdq(x, 0.1)], "model.1")
    net.head(net.conv(y, "model.2"))
    report = preflight(net.model())
    assert failing(report).check == "float-reader" and failing(report).layers == ["model.1"]
    assert report.type_changing == 3  # image, DQ in front of the Softmax, Q behind it


def shortcut(style: str, first: bool, second: bool, act: str = "silu") -> Report:
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.conv(net.conv(x, "model.1.cv1"), "model.1.cv2", act=act)
    total = net.op("Add", [net.qdq(x, 0.1) if first else x, net.qdq(y, 0.3) if second else y], "model.1/m/m.0/addop")
    net.head(net.conv(total, "model.2"))
    return preflight(net.model())


def test_sums(style: str) -> None:
    assert shortcut(style, True, True).passed
    broken = shortcut(style, True, False)  # the shortcut alone: a DQ kernel, as the engines of yolov5s had
    assert failing(broken).check == "sum" and failing(broken).layers == ["model.1.m.0.addop"]
    assert (broken.type_changing, broken.separate_q["avoidable"]) == (2, 0)
    assert shortcut(style, True, True, act="").passed
    assert shortcut(style, True, False, act="").passed  # Conv-Add: the sum is part of the convolution
    net = Net(style)
    x = net.conv("images", "model.0")
    y = net.conv(x, "model.1", act="")
    total = net.op("Add", [net.qdq(x, 0.1), y], "model.2")
    net.head(net.conv(net.op("Mul", [total, net.op("Tanh", [y])]), "model.3"))
    assert "sum" in failures(preflight(net.model()))  # the convolution has another reader
    float_sum = shortcut(style, False, False)
    assert (
        failing(float_sum).check == "mixed-readers"
        and "both operands of model.1.m.0.addop" in failing(float_sum).change
    )


def test_pyramid_as_in_the_engines(style: str) -> None:
    """yolov5s without rules had 7 type-changing Reformats: image, one a float Detect reader, two a forked lateral."""
    broken = preflight(pyramid(style, (0.1, 0.2)))
    assert broken.separate_q == {"image": 1, "known": 1, "avoidable": 2} and broken.type_changing == 4
    clean = preflight(pyramid(style))
    assert clean.passed and clean.separate_q == {"image": 1, "known": 1, "avoidable": 0}
    assert sorted(map(sorted, clean.groups)) == [["model.1", "model.4", "model.7"]]


def summary(report: Report) -> tuple[Any, ...]:
    return (
        sorted(failures(report)),
        report.separate_q,
        report.type_changing,
        report.requantize,
        report.int8_layers,
        sorted(map(sorted, report.groups)),
    )


def test_both_exporters_and_an_fp16_remainder_agree() -> None:
    for laterals in ((0.1, 0.1), (0.1, 0.2)):
        expected = summary(preflight(pyramid("torchscript", laterals)))
        assert summary(preflight(pyramid("dynamo", laterals))) == expected
        for style in STYLES:
            assert summary(preflight(pyramid(style, laterals, cast=True))) == expected


def test_simplified_graph_agrees() -> None:
    onnxsim = pytest.importorskip("onnxsim")
    for style in STYLES:
        model = pyramid(style, (0.1, 0.2))
        simplified, passed = onnxsim.simplify(model)
        assert passed and summary(preflight(simplified)) == summary(preflight(model))
