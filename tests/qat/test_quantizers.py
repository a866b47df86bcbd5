"""The quantizers that stand in while QAT trains, against the calibrated ones and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from quantization.qat.quantizers import LearnedScale, QatQuantizer, QatQuantizers
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d


def calibrated(amax: torch.Tensor, axis: int | None) -> nn.Module:
    quantizer.select_backend("native")
    part = quantizer.make_quantizer(axis=axis)
    quantizer.set_amax(part, amax)
    return part


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("axis", [None, 0])
def test_values_are_those_of_the_calibrated_quantizer(axis: int | None, learn: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 7, 7, generator=generator)
    amax = torch.tensor(1.7) if axis is None else torch.rand(5, 1, 1, 1, generator=generator) + 0.5
    part = calibrated(amax, axis)
    torch.testing.assert_close(QatQuantizer(part, 1, learn)(x), part(x))


def test_no_value_of_a_weight_quantizer_is_fetched_from_the_device() -> None:
    """aten::item is what waits for a GPU; on a CPU it is recorded all the same."""
    part = calibrated(torch.ones(5, 1, 1, 1), 0)
    stand_in, x = QatQuantizer(part, 1, False), torch.randn(5, 3, 7, 7, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        (part(x) + stand_in(x)).sum().backward()
    names = {event.key for event in record.key_averages()}
    assert any("fake_quantize" in name for name in names)
    assert "aten::item" not in names


@pytest.mark.parametrize("axis", [None, 0])
def test_gradients_are_those_of_lsq(axis: int | None) -> None:
    """Equation 3 of the paper, with the gradient g coming in; numpy."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 4, 3, 3)), rng.normal(size=(2, 4, 3, 3))
    scale = np.array([0.01, 0.02]).reshape(2, 1, 1, 1) if axis == 0 else np.array(0.015)
    tensor, learned = torch.tensor(x, requires_grad=True), torch.tensor(scale, requires_grad=True)
    LearnedScale.apply(tensor, learned, -128, 127).backward(torch.tensor(g))
    levels = x / scale
    slope = np.where(levels <= -128.5, -128, np.where(levels >= 127.5, 127, np.round(levels) - levels))
    assert (slope == 127).any() and (slope == -128).any()
    expected = (g * slope).sum(axis=(1, 2, 3), keepdims=True) if axis == 0 else (g * slope).sum()
    np.testing.assert_allclose(learned.grad.numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(tensor.grad.numpy(), np.where(np.abs(slope) < 100, g, 0.0))


class Three(nn.Module):
    """Two convolutions read one tensor through one shared quantizer, a third has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))
        for conv in (self.a, self.b, self.c):
            conv.__class__ = QuantConv2d
            conv.add_quantizers()
            quantizer.set_amax(conv._weight_quantizer, conv.weight.detach().abs().amax((1, 2, 3), keepdim=True))
            quantizer.set_amax(conv._input_quantizer, torch.tensor(2.0))
        self.b._input_quantizer = self.a._input_quantizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.a(x) + self.b(x))


def test_a_shared_tensor_is_quantized_once_and_the_output_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer.select_backend("native")
    torch.manual_seed(0)
    model = Three()
    x = torch.randn(2, 4, 5, 5)
    expected, calls = model(x), []
    plain = QatQuantizer.fake_quantize
    monkeypatch.setattr(QatQuantizer, "fake_quantize", lambda self, t: calls.append(t.shape) or plain(self, t))
    stand_ins = QatQuantizers(model)
    with stand_ins.in_place():
        torch.testing.assert_close(model(x), expected)
    assert calls.count(x.shape) == 2  # a and b together, and c; the rest are weights
    assert len(calls) == 5
    x += 1  # the same tensor with other values must not give the old result
    with stand_ins.in_place():
        changed = model(x)
    torch.testing.assert_close(changed, model(x))
    assert not stand_ins.parameters()


def test_learned_ranges_go_back_to_the_quantizers() -> None:
    quantizer.select_backend("native")
    torch.manual_seed(0)
    model = Three()
    before = float(model.c._input_quantizer.amax)
    shape = model.c._weight_quantizer.amax.shape
    stand_ins = QatQuantizers(model, learn=True)
    assert len(stand_ins.parameters()) == 5  # two activations, three weights
    with torch.no_grad():
        for parameter in stand_ins.parameters():
            parameter += 0.25
    stand_ins.write_back()
    assert float(model.c._input_quantizer.amax) == pytest.approx(before * np.exp(0.25), rel=1e-6)
    assert model.a._input_quantizer is model.b._input_quantizer
    assert model.c._weight_quantizer.amax.shape == shape
