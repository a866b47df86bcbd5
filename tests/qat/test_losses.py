"""The QAT loss against numpy and torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quantization.qat.losses import Distillation, distance, supervised_layers


def test_distance_equals_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    squared = ((student.numpy().astype(np.float64) - teacher.numpy()) ** 2).sum()
    assert float(distance(student, teacher, "mse")) == pytest.approx(squared / student.numel(), rel=1e-5)
    energy = (teacher.numpy().astype(np.float64) ** 2).sum()
    assert float(distance(student, teacher, "normalised")) == pytest.approx(squared / energy, rel=1e-5)
    assert float(distance(student, torch.zeros_like(student), "mse")) > 0
    assert torch.isfinite(distance(student * 0, teacher * 0, "normalised"))


def test_gradient_is_that_of_mse_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(4, 7, generator=generator)
    values = torch.randn(4, 7, generator=generator)
    ours, theirs = (values.clone().requires_grad_(True) for _ in range(2))
    (3 * distance(ours, teacher, "mse")).backward()
    (3 * F.mse_loss(theirs, teacher)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_large_half_precision_outputs_do_not_overflow() -> None:
    """Squares of 300 are beyond half precision's range."""
    student = torch.full((1, 8, 64, 64), 300.0, dtype=torch.float16, requires_grad=True)
    loss = distance(student, torch.zeros_like(student), "mse")
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(300.0**2, rel=1e-3)
    loss.backward()
    assert torch.isfinite(student.grad).all()


def test_supervised_layers_include_the_last_before_the_head() -> None:
    layers = nn.Sequential(*[nn.Identity() for _ in range(10)])
    assert supervised_layers(layers, 1) == list(range(9))
    assert supervised_layers(layers, 3) == [0, 3, 6, 8]


class Pair(nn.Module):
    """A head that gives a list of maps, as the detect heads do while training."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x + 1, 2 * x]


@pytest.mark.parametrize("head_weight", [0.0, 0.5])
def test_distillation_sums_the_layers_and_the_weighted_head(head_weight: float) -> None:
    torch.manual_seed(2)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), Pair())
    student = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), Pair())
    loss = Distillation(student, teacher, "mse", head_weight=head_weight)
    x = torch.randn(3, 4)
    with loss.watching():
        teacher(x)
        student(x)
        result = loss.take()
    expected, a, b = torch.zeros(()), x, x
    for layer, other in list(zip(student, teacher))[:2]:
        a, b = layer(a), other(b)
        expected = expected + F.mse_loss(a, b)
    for mine, theirs in zip(student[2](a), teacher[2](b)):
        expected = expected + head_weight * F.mse_loss(mine, theirs)
    torch.testing.assert_close(result, expected)
    assert not any(layer._forward_hooks for layer in (*student, *teacher))
