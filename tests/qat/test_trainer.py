"""The QAT loop on a small network."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantization.errors import UserError
from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.options import QatOptions
from quantization.qat import run as training
from quantization.qat.losses import TaskLoss
from quantization.qat.trainer import Trainer, finetune, learning_rate, take
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d
from quantization.upstream.record import CheckpointRecord


class Small(nn.Module):
    """Three convolutions and a head, in the form that the trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3 if not i else 8, 8, 3, padding=1), nn.SiLU(inplace=True)) for i in range(3)]
        self.model = nn.Sequential(*layers, nn.Flatten())  # Flatten: the head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 16, 16, generator=generator) for _ in range(4)]


def labelled(images: list[torch.Tensor]) -> list[Any]:
    """Batches without targets."""
    return [(batch, None) for batch in images]


def quantized(teacher: nn.Module, images: list[torch.Tensor]) -> nn.Module:
    """4-bit weights, so that training has something to mend."""
    model = copy.deepcopy(teacher)
    quantizer.select_backend("native")
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = QuantConv2d
            module.add_quantizers()
            module._weight_quantizer = quantizer.make_quantizer(axis=0, num_bits=4)
            quantizer.set_amax(module._weight_quantizer, module.weight.abs().amax((1, 2, 3), keepdim=True))
            quantizer.set_amax(module._input_quantizer, torch.tensor(2.0))
    return model


def distance(model: nn.Module, teacher: nn.Module, images: list[torch.Tensor]) -> float:
    with torch.no_grad():
        return sum(float(((model(x) - teacher(x)) ** 2).mean()) for x in images)


OPTIONS = {
    "published": {"loss": "mse", "schedule": "steps"},
    "default": {},
    "head": {"head_weight": 1.0, "ema": 0.9},
    "learned scales": {"schedule": "steps", "learn_scales": True},
}


@pytest.mark.parametrize("more", list(OPTIONS.values()), ids=list(OPTIONS))
def test_training_brings_the_outputs_closer(images: list[torch.Tensor], more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    teacher = Small()
    model = quantized(teacher, images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    before, epochs = distance(model, teacher, images), []
    finetune(
        Trainer(model, teacher, QatOptions(epochs=3, iters=60, lr=1e-3, **more)),
        labelled(images),
        lambda epoch, loss, lr: epochs.append((epoch, loss, lr)),
    )
    assert distance(model, teacher, images) < 0.5 * before
    assert [epoch for epoch, _, _ in epochs] == [0, 1, 2]
    assert epochs[-1][1] < epochs[0][1]
    assert not model.model[0]._forward_hooks and not model.training
    assert all(module.inplace for module in model.modules() if isinstance(module, nn.SiLU))


def test_learned_scales_mend_a_bad_range(images: list[torch.Tensor]) -> None:
    """An activation range that is 20 times too wide leaves a handful of levels."""
    torch.manual_seed(0)
    teacher = Small()
    ranges, distances = [], []
    for learn in (False, True):
        model = quantized(teacher, images)
        quantizer.set_amax(model.model[1][0]._input_quantizer, torch.tensor(40.0))
        finetune(
            Trainer(model, teacher, QatOptions(epochs=2, iters=100, lr=2e-3, learn_scales=learn)),
            labelled(images),
            lambda *_: None,
        )
        ranges.append(float(model.model[1][0]._input_quantizer.amax))
        distances.append(distance(model, teacher, images))
    assert ranges[0] == 40.0 and ranges[1] < 30.0
    assert distances[1] < 0.8 * distances[0]


def test_what_is_evaluated_is_the_average_and_training_goes_on_from_the_weights(images: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    teacher = Small()
    model = quantized(teacher, images)
    seen: list[torch.Tensor] = []
    finetune(
        Trainer(model, teacher, QatOptions(epochs=1, iters=40, lr=3e-3, ema=0.99)),
        labelled(images),
        lambda *_: seen.append(model.model[0][0].weight.detach().clone()),
    )
    start, end = (part.model[0][0].weight.detach() for part in (teacher, model))
    assert 0 < float((seen[0] - start).norm()) < float((end - start).norm())


def test_a_curve_that_cannot_be_drawn_stops_nothing(
    images: list[torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Summary(str(tmp_path / "summary.json"), {}, {})
    (tmp_path / "summary.png").mkdir()  # in the picture's way
    monkeypatch.setattr(training.checkpoint, "save", lambda *_: None)
    torch.manual_seed(0)
    teacher = Small()
    written = CheckpointRecord([], "mse", "native", {}, {}, {})
    apart = {"merged": {"points": 0.0, "plus_minus": 0.4}}
    same = Metrics(0.5, 0.6, 1, {}, 0.5, against={"ptq": apart})
    run = training.QatRun(QatOptions(epochs=2, iters=2), "qat.pt", written, summary, lambda _: same, same)
    run.train(quantized(teacher, images), teacher, labelled(images))
    assert [entry["epoch"] for entry in summary.figures("qat")["epochs"]] == [0, 1, 2]
    assert summary.figures("qat")["epoch"] == 1  # the first of equal ones
    assert not run.verdict.better and "is better than PTQ beyond the noise" in caplog.text
    assert sum("summary.png could not be drawn" in message for message in caplog.messages) == 2


def test_nan_and_growth_stop_with_the_remedy(images: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    teacher = Small()
    model = quantized(teacher, images)
    with pytest.raises(UserError, match=r"--lr.*PTQ checkpoint is intact"):
        finetune(Trainer(model, teacher, QatOptions(epochs=2, iters=100, lr=3.0)), labelled(images), lambda *_: None)
    damaged = [torch.full_like(images[0], math.nan)]
    with pytest.raises(UserError, match="epoch 1, step 1: the loss is nan"):
        trainer = Trainer(quantized(teacher, images), teacher, QatOptions(epochs=1, iters=2))
        finetune(trainer, labelled(damaged), lambda *_: None)


def test_labels_lead_where_they_differ_from_the_teacher(images: list[torch.Tensor]) -> None:
    """The labels are the teacher's outputs, halved. The loss must see the student's head, and the weight must count."""
    torch.manual_seed(0)
    teacher = Small()
    with torch.no_grad():
        wanted = [0.5 * teacher(batch) for batch in images]
    distances = []
    for weight in (0.0, 30.0, 1000.0):
        model = quantized(teacher, images)
        task = TaskLoss(model.model[-1], lambda maps, targets: (maps[0] - targets).square().mean(), weight)
        finetune(
            Trainer(model, teacher, QatOptions(epochs=1, iters=100, lr=3e-3), task),
            list(zip(images, wanted)),
            lambda *_: None,
        )
        assert not model.model[-1]._forward_hooks
        with torch.no_grad():
            distances.append(sum(float((model(x) - y).square().mean()) for x, y in zip(images, wanted)))
    assert distances[2] < 0.3 * distances[0] and distances[2] < distances[1] < distances[0]


def test_three_step_schedule() -> None:
    rates = [learning_rate(step / 10, 1e-5, "steps") for step in range(10)]
    assert rates == [pytest.approx(1e-6)] * 6 + [1e-5] + [pytest.approx(1e-6)] * 3


def test_cosine_schedule_warms_up_and_falls() -> None:
    rates = [learning_rate(step / 1000, 1e-5, "cosine") for step in range(1000)]
    highest = max(range(1000), key=rates.__getitem__)
    assert highest == 50 and rates[50] == pytest.approx(1e-5)
    assert 0 < rates[0] < rates[25] < rates[50] and rates[25] == pytest.approx(0.5e-5)
    assert all(a > b for a, b in zip(rates[50:], rates[51:]))
    assert rates[525] == pytest.approx((0.01 + 0.99 / 2) * 1e-5) and rates[-1] == pytest.approx(1e-7, rel=0.01)


def test_take_starts_over_and_refuses_nothing() -> None:
    assert len(list(take([torch.zeros(1)] * 3, 7))) == 7
    with pytest.raises(UserError, match="no images"):
        list(take([], 1))
