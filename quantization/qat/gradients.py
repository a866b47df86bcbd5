"""A training batch that is split over processes: its loss and gradients are those of the whole batch.

The gradients are summed here rather than by DistributedDataParallel: that averages losses of equal parts, while parts may be
uneven here and terms of the loss are ratios of sums over the whole batch; and it wants to call the model, whose layers and
head the losses hook.
"""

from __future__ import annotations

from typing import Iterable

import torch
from torch import Tensor

from quantization.distributed import RANKS
from quantization.signals import SIGNALS


class Gradients:
    """Sums over the processes. With one process nothing changes.

    A step calls ``share``, ``divisors`` and ``join`` in this order, in every process and inside ``SIGNALS.deferred()``.
    """

    def __init__(self) -> None:
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether a signal asks to stop after this step; the same in all processes, so that all stop after the same."""
        return self._stopping if RANKS.many else SIGNALS.requested

    def share(self, images: int) -> float:
        """Share of the batch that this process has; what signals there were becomes known here.

        Args:
            images: how many it has.
        """
        told = RANKS.exchange((images, SIGNALS.number))
        for _, number in told:
            SIGNALS.request(number)
        self._stopping = SIGNALS.requested and any(number for _, number in told)
        return images / sum(count for count, _ in told)

    def divisors(self, own: Tensor) -> Tensor:
        """Sums (terms,) over the whole batch of what divides the terms of the loss."""
        if not RANKS.many:
            return own
        with SIGNALS.deferred():
            RANKS.exchange()
            return RANKS.total(own)

    def join(self, parameters: Iterable[Tensor], loss: Tensor) -> Tensor:
        """Sum the gradients, in place, and the loss.

        Args:
            parameters: in the same order in every process; those without a gradient have none in any.
            loss: of this process's part, shape ().

        Returns:
            The loss of the whole batch.
        """
        if not RANKS.many:
            return loss
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([loss.float().reshape(1), *(gradient.float().reshape(-1) for gradient in gradients)])
        with SIGNALS.deferred():
            RANKS.exchange()
            RANKS.total(flat)
        start = 1
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view_as(gradient))
            start = end
        return flat[0]
