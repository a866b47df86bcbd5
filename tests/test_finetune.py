"""The QAT loop on a small network."""

from __future__ import annotations

import copy
import math
from typing import List

import pytest
import torch
from torch import nn

from quantization import calib, quantizer
from quantization.errors import UserError
from quantization.finetune import FinetuneOptions, finetune, layer_loss, learning_rate, supervised_layers, take
from quantization.modules import QuantConv2d


class Small(nn.Module):
    """Three convolutions and a head, in the form that the trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3 if not i else 8, 8, 3, padding=1), nn.SiLU()) for i in range(3)]
        self.model = nn.Sequential(*layers, nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


@pytest.fixture
def images() -> List[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 16, 16, generator=generator) for _ in range(4)]


def quantized(teacher: nn.Module, images: List[torch.Tensor]) -> nn.Module:
    """4-bit weights, so that training has something to mend."""
    model = copy.deepcopy(teacher)
    quantizer.select_backend("native")
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = QuantConv2d
            module.add_quantizers()
            module._weight_quantizer = quantizer.make_quantizer(axis=0, num_bits=4)
            weights = calib.MaxCalibrator(axis=0)
            weights.collect(module.weight)
            quantizer.set_amax(module._weight_quantizer, weights.compute_amax())
            quantizer.set_amax(module._input_quantizer, torch.tensor(2.0))
    return model


def distance(model: nn.Module, teacher: nn.Module, images: List[torch.Tensor]) -> float:
    with torch.no_grad():
        return sum(float(((model(x) - teacher(x)) ** 2).mean()) for x in images)


def test_training_brings_the_outputs_closer(images: List[torch.Tensor]) -> None:
    torch.manual_seed(0)
    teacher = Small()
    model = quantized(teacher, images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    before, epochs = distance(model, teacher, images), []
    finetune(model, teacher, images, FinetuneOptions(epochs=3, iterations=60, lr=3e-3),
             lambda epoch, loss, lr: epochs.append((epoch, loss, lr)))
    assert distance(model, teacher, images) < 0.5 * before
    assert [epoch for epoch, _, _ in epochs] == [0, 1, 2]
    assert epochs[-1][1] < epochs[0][1]
    assert not model.model[0]._forward_hooks and not model.training


def test_nan_and_growth_stop_with_the_remedy(images: List[torch.Tensor]) -> None:
    torch.manual_seed(0)
    teacher = Small()
    model = quantized(teacher, images)
    with pytest.raises(UserError, match="--lr.*PTQ checkpoint is intact"):
        finetune(model, teacher, images, FinetuneOptions(epochs=2, iterations=100, lr=3.0), lambda *_: None)
    damaged = [torch.full_like(images[0], math.nan)]
    with pytest.raises(UserError, match="epoch 1, step 1: the loss is nan"):
        finetune(quantized(teacher, images), teacher, damaged, FinetuneOptions(1, 2), lambda *_: None)


def test_three_step_schedule() -> None:
    rates = [learning_rate(step / 10, 1e-5) for step in range(10)]
    assert rates == [pytest.approx(1e-6)] * 6 + [1e-5] + [pytest.approx(1e-6)] * 3


def test_supervised_layers_include_the_last_before_the_head() -> None:
    layers = nn.Sequential(*[nn.Identity() for _ in range(10)])
    assert supervised_layers(layers, 1) == list(range(9))
    assert supervised_layers(layers, 3) == [0, 3, 6, 8]


def test_layer_loss_equals_numpy() -> None:
    a, b = torch.randn(2, 3, 4), torch.randn(2, 5)
    c, d = torch.randn(2, 3, 4), torch.randn(2, 5)
    expected = ((a - c).numpy() ** 2).mean() + ((b - d).numpy() ** 2).mean()
    assert float(layer_loss({0: a, 1: b}, {0: c, 1: d})) == pytest.approx(expected, rel=1e-5)


def test_take_starts_over_and_refuses_nothing() -> None:
    assert len(list(take([torch.zeros(1)] * 3, 7))) == 7
    with pytest.raises(UserError, match="no images"):
        list(take([], 1))
