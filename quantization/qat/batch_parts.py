"""A training batch that is split over processes: its loss and gradients are those of the whole batch.

The gradients are summed here rather than by DistributedDataParallel. That averages the losses of equal parts, but parts may be
uneven, and the loss is none of an average: its terms are ratios of sums over the whole batch, and upstream's are means over
the anchors that match. So sums are joined before they divide, and the head's maps before upstream's loss sees them, each
process following the gradient of its own images. It would also have to call the model, whose layers the losses hook.
"""

from __future__ import annotations

from typing import Iterable, Sequence

import torch
from torch import Tensor

from quantization.distributed import RANKS
from quantization.signals import SIGNALS


class BatchParts:
    """What the processes tell each other in a step. With one process nothing changes.

    A step calls ``begin``, ``divisors``, ``whole`` if there is a task, and ``join``, in every process and inside
    ``SIGNALS.deferred()``.
    """

    def __init__(self) -> None:
        self._stopping = False
        self._counts: list[tuple[int, int]] = [(0, 0)]

    @property
    def stopping(self) -> bool:
        """Whether a signal asks to stop after this step; the same in all processes, so that all stop after the same."""
        return self._stopping if RANKS.many else SIGNALS.requested

    def begin(self, images: int, targets: int) -> None:
        """Tell the numbers of images and targets that this process has; what signals came to any becomes known."""
        told = RANKS.exchange((images, targets, SIGNALS.number))
        self._counts = [counts[:2] for counts in told]
        for *_, number in told:
            SIGNALS.request(number)
        self._stopping = any(number for *_, number in told)

    def divisors(self, own: Tensor) -> Tensor:
        """Sums (terms,) over the whole batch of what divides the terms of the loss; ``own`` counts if there are images."""
        if not RANKS.many:
            return own
        RANKS.exchange()
        return RANKS.total(own * float(self.images > 0))

    @property
    def images(self) -> int:
        """How many of the batch this process has."""
        return self._counts[RANKS.rank][0]

    def whole(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps and targets of the whole batch.

        Args:
            maps: (B, ...) each, of this process's images; their gradient is followed.
            targets: (N, 6); the first column is the number of the image.

        Returns:
            The same for all images, process after process.
        """
        if not RANKS.many:
            return list(maps), targets
        RANKS.exchange()
        images, rows = zip(*self._counts)
        numbered = targets.clone()
        numbered[:, 0] += sum(images[: RANKS.rank])
        return [_joined(part, images) for part in maps], _joined(numbered, rows)

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
        RANKS.exchange()
        RANKS.total(flat)
        for gradient, part in zip(gradients, flat[1:].split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))
        return flat[0]


def _joined(own: Tensor, counts: Sequence[int]) -> Tensor:
    """The first rows of all processes' tensors, as many as ``counts`` says of each."""
    own = own[: counts[RANKS.rank]]
    padded = own.new_zeros((max(counts), *own.shape[1:]))
    padded[: len(own)] = own.detach()
    parts = RANKS.gathered(padded)
    return torch.cat([own if rank == RANKS.rank else parts[rank][:count] for rank, count in enumerate(counts)])
