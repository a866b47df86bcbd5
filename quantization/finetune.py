"""Quantization-aware training by distillation: layer outputs of the quantized model follow those of the float model.

No labels and no upstream loss are needed. The trainer knows nothing of the network but its list of layers.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization.errors import UserError

LOG = logging.getLogger("quantization")
CHECK_EVERY = 10  # steps between looks at the loss on the host: each look waits for the GPU
DIVERGED = 20.0  # times the first loss


@dataclass
class FinetuneOptions:
    """Options of the loop.

    Attributes:
        epochs: number of epochs; after each the model is evaluated.
        iterations: steps an epoch.
        lr: learning rate at its highest; see ``learning_rate``.
        supervision_stride: every n-th layer is supervised, and the last one before the head.
        amp: mixed precision, on a GPU.
    """

    epochs: int = 10
    iterations: int = 200
    lr: float = 1e-5
    supervision_stride: int = 1
    amp: bool = True


def learning_rate(progress: float, highest: float) -> float:
    """The published three-step schedule: a tenth, the highest from 60 % to 70 % of the steps, a tenth.

    Args:
        progress: share of the steps done, 0 to 1.
        highest: the learning rate of the middle step.
    """
    return highest if 0.6 <= progress < 0.7 else highest / 10


def supervised_layers(layers: nn.Sequential, stride: int) -> List[int]:
    """Indices of the layers whose outputs are compared: every ``stride``-th, and the last one before the head."""
    last = len(layers) - 2
    return sorted({*range(0, last + 1, max(1, stride)), last})


@contextlib.contextmanager
def recorded_outputs(layers: nn.Sequential, indices: List[int]) -> Iterator[Dict[int, Tensor]]:
    """Keep the outputs of some layers by forward hooks, for as long as the context lasts.

    Args:
        layers: the model's layers.
        indices: which to record.

    Yields:
        Layer index to its last output.
    """
    outputs: Dict[int, Tensor] = {}

    def hook(index: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[index] = output

        return keep

    handles = [layers[index].register_forward_hook(hook(index)) for index in indices]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def finetune(model: nn.Module, teacher: nn.Module, batches: Iterable[Tensor], options: FinetuneOptions,
             after_epoch: Callable[[int, float, float], None]) -> None:
    """Train ``model`` to give the layer outputs of ``teacher``.

    The sum over the supervised layers of the mean squared error is minimised by Adam.

    Args:
        model: quantized and calibrated; changed in place.
        teacher: the float model on the same device.
        batches: endless or long enough: images (B, 3, H, W), floats in 0..1 on that device; iterated once an epoch.
        options: see ``FinetuneOptions``.
        after_epoch: called with epoch (from 0), mean loss and last learning rate; saves what is worth keeping.

    Raises:
        UserError: the loss is NaN or has grown ``DIVERGED``-fold.
    """
    device = next(model.parameters()).device
    amp = options.amp and device.type == "cuda"
    scaler = torch.cuda.amp.GradScaler(enabled=amp) if not hasattr(torch, "amp") or not hasattr(
        torch.amp, "GradScaler") else torch.amp.GradScaler(device.type, enabled=amp)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad],
                                 lr=options.lr)
    indices = supervised_layers(model.model, options.supervision_stride)
    teacher.eval()
    watch = LossWatch()
    for epoch in range(options.epochs):
        # BatchNorm is folded, so train and eval mode differ in the head alone, which in training gives its raw maps
        model.train()
        total, lr, done = torch.zeros((), device=device), options.lr, 0
        steps = tqdm(take(batches, options.iterations), total=options.iterations, leave=False, unit="step",
                     desc=f"QAT {epoch + 1}/{options.epochs}")
        with recorded_outputs(model.model, indices) as student_outputs, \
                recorded_outputs(teacher.model, indices) as teacher_outputs:
            for step, images in enumerate(steps):
                lr = learning_rate((epoch * options.iterations + step) / (options.epochs * options.iterations),
                                   options.lr)
                optimizer.param_groups[0]["lr"] = lr
                with torch.autocast(device.type, enabled=amp):
                    with torch.no_grad():
                        teacher(images)
                    model(images)
                    loss = layer_loss(student_outputs, teacher_outputs)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                loss = loss.detach()
                total += loss
                done = step + 1
                if step % CHECK_EVERY == 0 or done == options.iterations:
                    watch.check(float(loss), epoch, step)
                    steps.set_postfix(loss=f"{float(loss):.4g}", lr=f"{lr:.1e}")
        model.eval()
        after_epoch(epoch, float(total) / max(1, done), lr)


def layer_loss(student: Dict[int, Tensor], teacher: Dict[int, Tensor]) -> Tensor:
    """Sum over layers of the mean squared error, in float32."""
    losses = [nn.functional.mse_loss(student[index].float(), teacher[index].float()) for index in teacher]
    return torch.stack(losses).sum()


def take(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """``count`` batches, starting over as often as needed.

    Raises:
        UserError: there is none.
    """
    taken = 0
    while taken < count:
        before = taken
        for batch in batches:
            yield batch
            taken += 1
            if taken == count:
                return
        if taken == before:
            raise UserError("QAT got no images: check the training list of the data set")


class LossWatch:
    """Stops a run whose loss is lost.

    Raises, from ``check``:
        UserError: NaN, infinity, or two looks in a row at more than ``DIVERGED`` times the first.
    """

    def __init__(self) -> None:
        self._first: Optional[float] = None
        self._last = 0.0

    def check(self, loss: float, epoch: int, step: int) -> None:
        where = f"QAT stopped in epoch {epoch + 1}, step {step + 1}"
        remedy = "lower --lr; the PTQ checkpoint is intact"
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise UserError(f"{where}: the loss is {loss}; {remedy}")
        if self._first is None:
            self._first = loss
        elif min(loss, self._last) > DIVERGED * self._first:
            raise UserError(f"{where}: the loss grew from {self._first:.4g} to {loss:.4g}; {remedy}")
        self._last = loss
