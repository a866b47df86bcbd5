"""What the export rewrites, against ONNX Runtime on the graph as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from quantization.onnx_graph.cleanup import respell_float_silu
from quantization.preflight.report import preflight
from support.qdq_net import STYLES, Net


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type not in ("Constant", "Conv")]


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    unnamed = onnx.ModelProto()
    unnamed.CopyFrom(model)
    for node in unnamed.graph.node:  # qdq_net gives one name to several
        node.ClearField("name")
    session = onnxruntime.InferenceSession(unnamed.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def float_stem(style: str) -> Net:
    """A float convolution with a stride and SiLU, then one in INT8."""
    net = Net(style)
    net.head(net.conv(net.conv("images", "model.0", None, stride=2), "model.1", 0.05))
    return net


@pytest.mark.parametrize("style", STYLES)
def test_silu_between_a_float_convolution_and_a_q(style: str) -> None:
    model = float_stem(style).model()
    images = 9 * np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 1e4, -1e4  # where exp would overflow
    expected, before = run(model, images), preflight(model)
    respell_float_silu(model)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model)[:5] == ["Mul", "Tanh", "Mul", "Add", "QuantizeLinear"]
    assert operators(model)[-2:] == ["Sigmoid", "Mul"]  # of the INT8 convolution
    found = run(model, images)
    assert np.isfinite(found).all()
    # a value on the edge between two levels may fall on the other side
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01 and np.abs(expected).max() > 1
    report = preflight(model)  # no longer part of the convolution's kernel, it emits INT8: no Q kernel behind it
    assert [one.separate_q["avoidable"] for one in (before, report)] == [1, 0] and report.passed


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", ["quantized", "another activation", "a float reader", "an output", "no Q"])
def test_what_stays(style: str, case: str) -> None:
    net = Net(style)
    x = net.conv(
        "images",
        "model.0",
        0.1 if case == "quantized" else None,
        stride=2,
        act="Relu" if case == "another activation" else "silu",
    )
    if case == "a float reader":
        net.head(x, "model.8")
    elif case == "an output":
        net.outputs.append((x, 4))
    net.head(net.conv(x, "model.1", None if case == "no Q" else 0.1))
    model = net.model()
    before = operators(model)
    respell_float_silu(model)
    assert operators(model) == before
