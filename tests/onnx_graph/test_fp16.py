"""The FP16 remainder on a small network, by ONNX Runtime against the FP32 original."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from quantization.errors import UserError
from quantization.onnx_graph.fp16 import convert_remainder

NETWORK = """
<ir_version: 9, opset_import: ["" : {opset}]>
net (float[b, 3, 8, 8] images) => (float[b, n] outputs)
<float[4, 3, 1, 1] w, float[2, 4, 1, 1] v, float scale = {{0.01}}, float[4] scales = {{1e-9, 0.01, 0.02, 0.03}},
 int8 zero = {{0}}, int8[4] zeros = {{0, 0, 0, 0}}, float two = {{2.0}}, float[4] sizes = {{1.0, 1.0, 2.0, 2.0}}>
{{
    q = QuantizeLinear(images, scale, zero)
    x = DequantizeLinear(q, scale, zero)
    wq = QuantizeLinear<axis = 0>(w, scales, zeros)
    wd = DequantizeLinear<axis = 0>(wq, scales, zeros)
    c = Conv(x, wd)
    s = Sigmoid(c)
    m = Mul(c, s)
    t = Mul(m, two)
    r = Resize<mode = "nearest">(t, , sizes)
    head = Conv(r, v)
    twice = Mul(head, two)
    flat = Flatten(twice)
    offset = Constant<value = float {{640.25}}>()
    outputs = Add(flat, offset)
}}
"""


def network(opset: int = 19, largest: float = 0.5) -> onnx.ModelProto:
    model = onnx.parser.parse_model(NETWORK.format(opset=opset))
    generator = np.random.default_rng(0)
    values = {"w": generator.normal(size=(4, 3, 1, 1)), "v": largest * generator.random((2, 4, 1, 1))}
    for name, value in values.items():
        kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, onnx.numpy_helper.from_array(value.astype(np.float32), name)])
    return model


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).random((2, 3, 8, 8), dtype=np.float32)
    return session.run(None, {"images": images})[0]


def test_body_is_half_and_decode_is_not() -> None:
    original = network()
    before = original.SerializeToString()
    converted = convert_remainder(original)
    assert original.SerializeToString() == before
    casts = [(node.input[0], node.attribute[0].i) for node in converted.graph.node if node.op_type == "Cast"]
    assert casts == [("images", onnx.TensorProto.FLOAT16), ("head", onnx.TensorProto.FLOAT)]
    types = {tensor.name: tensor.data_type for tensor in converted.graph.initializer}
    assert types == {
        "w_fp16": 10,
        "v_fp16": 10,
        "scale_fp16": 10,
        "scales_fp16": 10,
        "two_fp16": 10,
        "zero": 3,
        "zeros": 3,
        "two": 1,
        "sizes": 1,
    }  # 10: FP16, 3: INT8, 1: FP32; "two" serves both parts
    expected, actual = run(original), run(converted)
    assert actual.dtype == np.float32
    # finer than the 0.5 that FP16 holds at 640, and not exactly equal, since the body is rounded
    assert 0 < np.abs(actual - expected).max() < 0.1


def test_a_scale_below_fp16_stays_above_zero() -> None:
    scales = next(tensor for tensor in convert_remainder(network()).graph.initializer if tensor.name == "scales_fp16")
    assert (onnx.numpy_helper.to_array(scales) > 0).all()


def test_refusals() -> None:
    with pytest.raises(UserError, match="opset 19"):
        convert_remainder(network(opset=13))
    with pytest.raises(UserError, match="v holds values above 65504"):
        convert_remainder(network(largest=1e6))


def test_outputs_that_a_convolution_makes_keep_their_names_and_type() -> None:
    """Raw head maps are outputs of the body; one of them is read again behind it."""
    original = network()
    for name in ("head", "m"):
        original.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list("bchw")))
    converted = convert_remainder(original)
    assert [value.name for value in converted.graph.output] == ["outputs", "head", "m"]
    images = {"images": np.random.default_rng(1).random((2, 3, 8, 8), dtype=np.float32)}
    expected, actual = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, images)
        for model in (original, converted)
    )
    for ours, theirs in zip(expected, actual):
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=0.02)  # a pixel between two levels may round otherwise
