"""Sums that TensorRT has computed wrongly: flagged where the pattern is, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantization.preflight.report import preflight
from support.qdq_net import STYLES, Net


def tanh_silu(net: Net, x: str) -> str:
    """SiLU as export spells it for TensorRT 8.6."""
    half = net.op("Mul", [x, net.constant(np.full((1, 1, 1, 1), 0.5, np.float32))])
    return net.op("Add", [net.op("Mul", [half, net.op("Tanh", [half])]), half])


def found(style: str, **options: Any) -> list[tuple[str, list[str]]]:
    """Findings on a bottleneck with a shortcut, as in the blocks of YOLOv8 (shortcut "split") and YOLOv5 ("apart")."""
    act, scale, shortcut = (options.get(name, value) for name, value in DEFAULTS.items())
    net = Net(style)
    x = net.conv("images", "model.0")
    if shortcut == "split":
        node = net.op("Split", [x], axis=1)
        net.nodes[-1].output.append("second")
        first, second = node, "second"
        if style == "dynamo":  # opset 18
            net.nodes[-1].attribute.add(name="num_outputs", type=2, i=2)
    elif shortcut == "slice":
        limits = [net.constant(np.array([value])) for value in (0, 2, 1)]
        first = second = net.op("Slice", [x, *limits])
    else:
        first, second = net.conv(x, "model.1", out=2), net.conv(x, "model.2", out=2)
    y = net.conv(second, "model.3.cv1", scale, out=2, inside=2)
    y = net.conv(y, "model.3.cv2", scale, act="" if act == "tanh" else act, out=2, inside=2)
    y = tanh_silu(net, y) if act == "tanh" else y
    operands = [net.qdq(y, 0.1), net.qdq(second, 0.1)] if options.get("pairs") else [y, second]
    total = net.op("Add", operands[:: options.get("order", 1)])
    parts = [first, total] if shortcut == "apart" or options.get("unshared") else [first, second, total]
    net.head(net.conv(net.op("Concat", parts, axis=1), "model.4", inside=2 * len(parts)))
    report = preflight(net.model(), lambda path: path.startswith("model.3"))
    return [(item.severity, item.layers) for item in report.findings if item.check == "strided-sum"]


DEFAULTS = {"act": "silu", "scale": None, "shortcut": "split"}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": -1},
        {"act": "Relu"},
        {"act": "tanh"},
        {"shortcut": "slice"},
        {"shortcut": "convolutions"},  # both feed the Concat
        {"unshared": True},  # a part of a Split that the Concat does not read
    ],
)
def test_the_pattern_is_flagged(style: str, options: dict[str, Any]) -> None:
    ((severity, layers),) = found(style, **options)
    assert severity == "warn" and layers[0] == "model.3.cv2"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "apart"},  # YOLOv5's: the operand is a tensor of its own
        {"act": ""},  # no activation in between
        {"scale": 0.1},  # in INT8
        {"pairs": True},  # the sum reads INT8
    ],
)
def test_others_are_not(style: str, options: dict[str, Any]) -> None:
    assert found(style, **options) == []
