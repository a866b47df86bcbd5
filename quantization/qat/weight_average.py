"""Exponential moving average of the weights, which is what is evaluated and saved."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

import torch
from torch import Tensor


class WeightAverage:
    """average = d * average + (1 - d) * weight after each step, with d = min(decay, n / (n + 10)) in step n = 1, 2, ...

    The ramp keeps the first weights from staying in a short run's average (as in TensorFlow's ExponentialMovingAverage).

    Args:
        parameters: averaged; changed by an optimizer in place.
        decay: 0 to 1; it averages over about 1 / (1 - decay) steps.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = list(parameters)
        self._average: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]
        self._decay, self._steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights in, after an optimizer's step."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 10))
        torch._foreach_mul_(self._average, decay)  # one kernel for many tensors, as the optimizers of torch do
        torch._foreach_add_(self._average, [parameter.detach() for parameter in self._parameters], alpha=1 - decay)

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes; tensors are not copied."""
        return {"average": self._average, "steps": self._steps}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        for average, value in zip(self._average, state["average"]):
            average.copy_(value)
        self._steps = state["steps"]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the parameters have their averages as values."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._average[index] = self._average[index], parameter.data
