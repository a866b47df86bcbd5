"""What QAT minimises: the distance to the float model's outputs, layer by layer, and upstream's own training loss.

Terms are taken while the quantized model runs: as soon as a layer has its output, it is compared with the float model's,
which is freed then. What stays for the backward pass is their difference, in the precision that they came in.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, List, Tuple

import torch
from torch import Tensor, nn

from quantization.upstream.outputs import flatten

Whole = Callable[[List[Tensor], Tensor], Tuple[List[Tensor], Tensor]]


class SquaredDistance(torch.autograd.Function):
    """Sum of (student - teacher)^2, shape () in float32; both of one shape, in any floating type.

    ``mse_loss`` under autocast would make float32 copies of both, and keep them for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """Both of one shape to shape ()."""
        difference = student - teacher
        ctx.save_for_backward(difference)
        return torch.linalg.vector_norm(difference, dtype=torch.float32).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Gradient of ``student``, of its shape."""
        return ctx.saved_tensors[0] * (2 * gradient), None


def terms_of(student: Tensor, teacher: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """One term of the loss, as the squared distance and what divides it, shape () in float32 each.

    Args:
        student: output of the quantized model.
        teacher: the same of the float model.
        loss: "mse": the mean squared error; "normalised": the squared error over the energy of ``teacher``, which is the
            reciprocal of the signal-to-noise ratio, so that all layers count the same whatever the magnitude of their outputs.
    """
    squared = SquaredDistance.apply(student, teacher)
    if loss == "mse":
        return squared, squared.new_full((), float(teacher.numel()))
    return squared, torch.linalg.vector_norm(teacher, dtype=torch.float32).square()


def distance(student: Tensor, teacher: Tensor, loss: str) -> Tensor:
    """One term of the loss, shape () in float32; see ``terms_of``."""
    squared, divisor = terms_of(student, teacher, loss)
    return squared / divisor.clamp(min=torch.finfo(torch.float32).tiny)


def supervised_layers(layers: nn.Sequential, stride: int) -> list[int]:
    """Indices of the layers whose outputs are compared: every ``stride``-th, and the last one before the head."""
    last = len(layers) - 2
    return sorted({*range(0, last + 1, max(1, stride)), last})


class Distillation:
    """The loss of a student against a teacher.

    Args:
        student: the quantized model's layers; the last one is the head.
        teacher: the float model's.
        loss: of each layer, one of ``options.LOSSES``.
        stride: see ``supervised_layers``.
        head_weight: weight of the head's outputs; 0 leaves them out.
    """

    def __init__(
        self,
        student: nn.Sequential,
        teacher: nn.Sequential,
        loss: str = "mse",
        stride: int = 1,
        head_weight: float = 0.0,
    ) -> None:
        self._student, self._teacher, self._loss = student, teacher, loss
        self._weights: dict[int, float] = {index: 1.0 for index in supervised_layers(student, stride)}
        if head_weight:
            self._weights[len(student) - 1] = head_weight
        self._expected: dict[int, list[Tensor]] = {}
        self._terms: list[tuple[float, Tensor, Tensor]] = []  # weight, squared distance, divisor

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on the layers of both, for as long as the context lasts. In each step the teacher has to run first."""
        handles = [
            layers[index].register_forward_hook(make(index))
            for index in self._weights
            for layers, make in ((self._teacher, self._keep), (self._student, self._compare))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._expected[index] = flatten(output)

        return hook

    def _compare(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for student, teacher in zip(flatten(output), self._expected.pop(index)):
                self._terms.append((self._weights[index], *terms_of(student, teacher, self._loss)))

        return hook

    def take(self, divide: Callable[[Tensor], Tensor] = lambda divisors: divisors, factor: float = 1.0) -> Tensor:
        """The sum of the terms since the last call, shape ().

        Args:
            divide: from the divisors (terms,) of these images to those of the whole batch.
            factor: of the images; 0: they only fill a place.
        """
        terms, self._terms = self._terms, []
        divisors = divide(torch.stack([divisor for _, _, divisor in terms]))
        divisors = divisors.clamp(min=torch.finfo(torch.float32).tiny)
        found = [factor * weight * squared / divisor for (weight, squared, _), divisor in zip(terms, divisors)]
        return torch.stack(found).sum()


class TaskLoss:
    """The loss of a student against labels.

    Args:
        head: the student's last layer, which gives its raw maps in training mode.
        loss: of these maps and targets, see ``upstream.detection_loss``.
        weight: its factor.
    """

    def __init__(self, head: nn.Module, loss: Callable[[list[Tensor], Tensor], Tensor], weight: float) -> None:
        self._head, self._loss, self._weight = head, loss, weight
        self._maps: list[Tensor] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A hook on the head, for as long as the context lasts."""

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self._maps = flatten(output)

        handle = self._head.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def take(self, targets: Tensor, whole: Whole = lambda maps, targets: (maps, targets)) -> Tensor:
        """The loss of the last forward pass, shape ().

        Args:
            targets: of its images.
            whole: from maps and targets of these images to those of the whole batch.
        """
        maps, self._maps = self._maps, []
        return self._weight * self._loss(*whole(maps, targets))
