"""Quantizers of both backends against numpy; the seam that chooses between them."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from quantization.errors import UserError
from quantization.export.quantizer import ExportQuantizer
from quantization.options import BACKEND_VARIABLE
from quantization.quantizers import backend as seam
from quantization.quantizers.modules import QuantAdd, QuantConv2d, QuantUpsample, quantized_type
from quantization.quantizers.native import QuantDescriptor
from quantization.quantizers.native import TensorQuantizer as NativeQuantizer
from quantization.quantizers.switches import disable_quantization, quantizers_of, uncalibrated
from quantization.ranges.levels import LEAST_AMAX

try:
    seam.import_pytorch_quantization()
    BACKENDS = ["native", "pytorch-quantization"]
except ImportError:
    BACKENDS = ["native"]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(seam, "_selected", None)  # put back at the end
    assert seam.select_backend(request.param) == request.param
    return request.param


def numpy_fake_quant(x: np.ndarray, amax: np.ndarray) -> np.ndarray:
    scale = amax.astype(np.float64) / 127
    return np.clip(np.round(x.astype(np.float64) / scale), -128, 127) * scale


def assert_equal_up_to_ties(actual: torch.Tensor, x: np.ndarray, amax: np.ndarray) -> None:
    """Equal to numpy, but where x / scale is a tie in float32 and may round to the other level."""
    error = np.abs(actual.detach().numpy() - numpy_fake_quant(x, amax)) / (amax / 127)
    tie = np.abs(np.abs(x / (amax / 127) % 1) - 0.5) < 1e-4
    assert (error[~tie] < 1e-3).all() and (error < 1.001).all()


def test_per_tensor_equals_numpy() -> None:
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3
    quantizer = seam.make_quantizer()
    seam.set_amax(quantizer, torch.tensor(2.5))
    assert_equal_up_to_ties(quantizer(x), x.numpy(), np.array(2.5))


def test_per_channel_equals_numpy() -> None:
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    amax = weight.abs().amax((1, 2, 3), keepdim=True)
    quantizer = seam.make_quantizer(axis=0)
    seam.set_amax(quantizer, amax)
    assert_equal_up_to_ties(quantizer(weight), weight.numpy(), amax.numpy())


def test_gradient_is_straight_through_inside_the_range() -> None:
    x = torch.tensor([-5.0, -0.3, 0.0, 0.7, 5.0], requires_grad=True)
    quantizer = seam.make_quantizer()
    seam.set_amax(quantizer, torch.tensor(1.0))
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_switches() -> None:
    x = torch.linspace(-2, 2, 7)
    quantizer = seam.make_quantizer()
    with pytest.raises(RuntimeError, match="never calibrated"):
        seam.get_scale(quantizer)
    seam.set_amax(quantizer, torch.tensor(4.0))
    assert seam.is_quantizing(quantizer) and seam.is_enabled(quantizer) and not seam.is_per_channel(quantizer)
    assert float(seam.get_amax(quantizer)) == 4 and float(seam.get_scale(quantizer)) == pytest.approx(4 / 127)
    quantizer.disable_quant()
    assert quantizer(x) is x and seam.is_enabled(quantizer) and not seam.is_quantizing(quantizer)
    quantizer.enable_quant()
    assert_equal_up_to_ties(quantizer(x), x.numpy(), np.array(4.0))
    seam.set_enabled(quantizer, False)
    assert quantizer(x) is x and not seam.is_enabled(quantizer) and not seam.is_quantizing(quantizer)
    seam.set_enabled(quantizer, True)
    assert quantizer(x) is not x
    assert seam.is_per_channel(seam.make_quantizer(axis=0))


def test_width() -> None:
    x = torch.linspace(-1.99, 1.98, 100)
    quantizer = seam.make_quantizer()
    seam.set_amax(quantizer, torch.tensor(2.0))
    seam.set_bits(quantizer, 4)
    assert seam.bits(quantizer) == 4 and float(seam.get_scale(quantizer)) == pytest.approx(2 / 7)
    np.testing.assert_allclose(quantizer(x).numpy(), np.round(x.numpy() * 3.5) / 3.5, atol=1e-6)
    with pytest.raises(ValueError, match="num_bits"):
        seam.set_bits(quantizer, 16)


def test_copies_and_pickles_keep_sharing_and_amax() -> None:
    model = nn.ModuleList([QuantConv2d(3, 4, 1), QuantConv2d(3, 4, 1)])
    for conv in model:
        conv.add_quantizers()
    seam.set_amax(seam.get_quantizer(model[0]), torch.tensor(1.5))
    seam.put_quantizer(model[1], seam.get_quantizer(model[0]))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert seam.get_quantizer(other[0]) is seam.get_quantizer(other[1])
        assert seam.get_quantizer(other[0]) is not seam.get_quantizer(model[0])
        assert float(seam.get_quantizer(other[1]).amax) == 1.5


def test_conv_add_and_upsample_equal_numpy_on_quantized_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 2, 4, 4, generator=generator), torch.randn(1, 2, 4, 4, generator=generator)
    conv, add, up = QuantConv2d(2, 3, 1), QuantAdd(), QuantUpsample(scale_factor=2, mode="nearest")
    conv.add_quantizers()
    up.add_quantizers()
    amax = conv.weight.detach().abs().amax((1, 2, 3), keepdim=True)
    seam.set_amax(seam.get_quantizer(conv, seam.WEIGHT_NAME), amax)
    for quantizer in (
        seam.get_quantizer(conv),
        seam.get_quantizer(add, seam.INPUT_NAMES[1]),
        seam.get_quantizer(add, seam.INPUT_NAMES[2]),
        seam.get_quantizer(up),
    ):
        seam.set_amax(quantizer, torch.tensor(3.0))
    qx, qy = (numpy_fake_quant(v.numpy(), np.array(3.0)) for v in (x, y))
    weight = numpy_fake_quant(conv.weight.detach().numpy(), amax.numpy())[:, :, 0, 0]
    expected = np.einsum("oc,bchw->bohw", weight, qx) + conv.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(conv(x).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(add(x, y).numpy(), qx + qy, atol=1e-6)
    np.testing.assert_allclose(up(x).numpy(), qx.repeat(2, 2).repeat(2, 3), atol=1e-6)


def test_contexts_restore_what_was() -> None:
    model = nn.ModuleList([QuantConv2d(3, 4, 1), QuantConv2d(3, 4, 1)])
    for conv in model:
        conv.add_quantizers()
    seam.get_quantizer(model[0]).disable()
    quantizers = quantizers_of(model)
    before = [seam.is_enabled(quantizer) for quantizer in quantizers]
    with pytest.raises(KeyError), disable_quantization(model):
        assert not any(seam.is_enabled(quantizer) for quantizer in quantizers)
        seam.set_enabled(quantizers[0], True)
        raise KeyError
    assert [seam.is_enabled(quantizer) for quantizer in quantizers] == before and len(set(before)) == 2


def test_uncalibrated_names_what_lacks_a_scale() -> None:
    conv = QuantConv2d(3, 4, 1)
    conv.add_quantizers()
    model = nn.Sequential(conv)
    assert uncalibrated(model) == ["0._input_quantizer", "0._weight_quantizer"]
    seam.set_amax(seam.get_quantizer(conv), torch.tensor(float("nan")))
    seam.set_amax(seam.get_quantizer(conv, seam.WEIGHT_NAME), torch.ones(4, 1, 1, 1))
    assert uncalibrated(model) == ["0._input_quantizer"]
    for amax, bad in ((0.0, True), (LEAST_AMAX * 0.999, True), (LEAST_AMAX, False), (float("inf"), True)):
        seam.set_amax(seam.get_quantizer(conv), torch.tensor(amax))
        assert bool(uncalibrated(model)) == bad, amax
    seam.get_quantizer(conv).disable()
    assert uncalibrated(model) == []


def test_export_quantizer_gives_the_same_values() -> None:
    x = torch.randn(4, 3, 2, 2)
    for axis, amax in ((None, torch.tensor(1.2)), (0, torch.rand(4, 1, 1, 1) + 0.5)):
        quantizer = seam.make_quantizer(axis)
        seam.set_amax(quantizer, amax)
        torch.testing.assert_close(ExportQuantizer(quantizer)(x), quantizer(x), atol=1e-5, rtol=0)


def test_swapped_puts_back_after_an_error() -> None:
    conv = QuantConv2d(3, 4, 1)
    conv.add_quantizers()
    quantizers = [quantizer for *_, quantizer in seam.named_quantizers(conv)]
    with pytest.raises(KeyError), seam.swapped(conv, lambda *place: nn.Identity()):
        assert isinstance(seam.get_quantizer(conv), nn.Identity)
        raise KeyError
    assert [quantizer for *_, quantizer in seam.named_quantizers(conv)] == quantizers


def test_registry_takes_exact_types_only() -> None:
    class Odd(nn.Conv2d):
        pass

    assert quantized_type(nn.Conv2d(1, 1, 1), ()) is QuantConv2d
    assert quantized_type(Odd(1, 1, 1), ()) is None
    assert quantized_type(nn.Upsample(scale_factor=2, mode="nearest"), ()) is QuantUpsample
    assert quantized_type(nn.Upsample(scale_factor=2, mode="bilinear"), ()) is None


def test_bad_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--backend"):
        seam.select_backend("nothing")
    monkeypatch.setenv(BACKEND_VARIABLE, "nothing")
    with pytest.raises(UserError, match=BACKEND_VARIABLE):
        seam.select_backend()
    monkeypatch.setenv(BACKEND_VARIABLE, "native")
    assert seam.select_backend() == "native"
    with pytest.raises(ValueError, match="num_bits"):
        QuantDescriptor(num_bits=16)
    with pytest.raises(ValueError, match="axis"):
        QuantDescriptor(axis=1)
    with pytest.raises(RuntimeError, match="never calibrated"):
        NativeQuantizer()(torch.zeros(1))
