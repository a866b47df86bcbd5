"""Quantization-aware training: outputs of the quantized model follow those of the float model, and labels if there are.

The trainer knows nothing of the network but its list of layers.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from typing import Any, Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from quantization.data.tensors import Labelled
from quantization.errors import UserError
from quantization.options import QatOptions
from quantization.qat.losses import Distillation, TaskLoss
from quantization.qat.quantizers import QatQuantizers
from quantization.qat.weight_average import WeightAverage

LOG = logging.getLogger("quantization")
AMP_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "off": None}
CHECK_EVERY = 10  # steps between looks at the loss on the host: each look waits for the GPU
DIVERGED = 20.0  # times the first loss
SCALE_RATE = 10.0  # learning rate of the learned scales, which are shares, times that of the weights


def learning_rate(progress: float, highest: float, schedule: str) -> float:
    """The learning rate of a step.

    Args:
        progress: share of the steps done, 0 to 1.
        highest: the largest learning rate.
        schedule: "steps", the published one: a tenth, the highest from 60 % to 70 % of the steps, a tenth; "cosine": rises
            evenly in the first 5 % and falls to 1 % by a cosine.
    """
    if schedule == "steps":
        return highest if 0.6 <= progress < 0.7 else highest / 10
    if progress < 0.05:
        return highest * max(progress, 0.0005) / 0.05
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95)))


def make_optimizer(weights: Any, scales: Any, device: torch.device) -> torch.optim.Adam:
    """Adam; on a GPU in one kernel, where torch has it, which also spares GradScaler its wait for the GPU."""
    groups = [{"params": weights, "rate": 1.0}] + ([{"params": scales, "rate": SCALE_RATE}] if scales else [])
    if device.type == "cuda" and "fused" in inspect.signature(torch.optim.Adam.__init__).parameters:
        return torch.optim.Adam(groups, fused=True)
    return torch.optim.Adam(groups)


def make_scaler(device: torch.device, enabled: bool) -> Any:
    """GradScaler under its name of this torch."""
    if hasattr(torch, "amp") and hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


class Trainer:
    """QAT, one step at a time. No step waits for the GPU, but in upstream's loss.

    Args:
        model: quantized and calibrated; trained in place.
        teacher: the float model on the same device.
        options: see ``QatOptions``.
        task: the loss against labels; None: there is none.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, options: QatOptions, task: TaskLoss | None = None) -> None:
        self.model, self.teacher, self.options = model, teacher.eval().requires_grad_(False), options
        self.device = next(model.parameters()).device
        self.amp = AMP_TYPES[options.amp] if self.device.type == "cuda" else None
        self.scaler = make_scaler(self.device, self.amp == torch.float16)
        weights = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
        for parameter in weights:
            parameter.requires_grad_(True)
        self.quantizers = QatQuantizers(model, options.learn_scales)
        scales = self.quantizers.parameters()
        self.optimizer = make_optimizer(weights, scales, self.device)
        self.average = WeightAverage([*weights, *scales], options.ema) if options.ema else None
        self.loss = Distillation(
            model.model, teacher.model, options.loss, options.supervision_stride, options.head_weight
        )
        self.task = task

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Context in which ``step`` may be called."""
        # all but the head stays in eval mode: what BatchNorm is not folded (in CSP blocks) has to keep its statistics
        self.model.eval()
        heads = (self.model.model[-1], self.teacher.model[-1])
        # an activation in place would have to copy its input for the backward pass first
        in_place = [module for module in self.model.modules() if getattr(module, "inplace", False) is True]
        try:
            for head in heads:
                head.training = True  # it gives its raw maps
            for module in in_place:
                module.inplace = False
            task = contextlib.nullcontext() if self.task is None else self.task.watching()
            with self.quantizers.in_place(), self.loss.watching(), task:
                yield
        finally:
            for head in heads:
                head.training = False
            for module in in_place:
                module.inplace = True

    def step(self, images: Tensor, lr: float, targets: Tensor | None = None) -> Tensor:
        """Train on one batch.

        Args:
            images: (B, 3, H, W), floats in 0..1 on the model's device.
            lr: learning rate.
            targets: what the task's loss wants, on the same device.

        Returns:
            The loss before the step, shape (), on the device.
        """
        with torch.autocast(self.device.type, dtype=self.amp or torch.bfloat16, enabled=self.amp is not None):
            with torch.no_grad():
                self.teacher(images)
            self.model(images)
            loss = self.loss.take()
            if self.task is not None:
                assert targets is not None  # where there is a task, batches have labels
                loss = loss + self.task.take(targets)
        self.quantizers.forget()
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return loss.detach()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context in which the model is as it would be saved: averaged weights, learned scales as amax, eval mode."""
        with self.average.applied() if self.average is not None else contextlib.nullcontext():
            self.quantizers.write_back()
            self.model.eval()
            yield


def finetune(trainer: Trainer, batches: Iterable[Labelled], after_epoch: Callable[[int, float, float], None]) -> None:
    """Train for as many epochs and steps as the trainer's options say.

    Args:
        trainer: of the model, which is changed in place.
        batches: on the model's device; iterated as often as needed.
        after_epoch: called with epoch (from 0), mean loss and last learning rate; saves what is worth keeping.

    Raises:
        UserError: the loss is NaN or has grown ``DIVERGED``-fold.
    """
    options, watch = trainer.options, LossWatch()
    for epoch in range(options.epochs):
        total, lr, done = torch.zeros((), device=trainer.device), options.lr, 0
        steps = tqdm(
            take(batches, options.iters),
            total=options.iters,
            leave=False,
            unit="step",
            desc=f"QAT {epoch + 1}/{options.epochs}",
        )
        with trainer.training():
            for step, (images, targets) in enumerate(steps):
                lr = learning_rate(
                    (epoch * options.iters + step) / (options.epochs * options.iters),
                    options.lr,
                    options.schedule,
                )
                loss = trainer.step(images, lr, targets)
                total += loss
                done = step + 1
                if step % CHECK_EVERY == 0 or done == options.iters:
                    watch.check(float(loss), epoch, step)
                    steps.set_postfix(loss=f"{float(loss):.4g}", lr=f"{lr:.1e}")
        with trainer.evaluating():
            after_epoch(epoch, float(total) / max(1, done), lr)


def take(batches: Iterable[Labelled], count: int) -> Iterator[Labelled]:
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
        self._first: float | None = None
        self._last = 0.0

    def check(self, loss: float, epoch: int, step: int) -> None:
        """Look at the loss of a step; see the class for what it raises."""
        where = f"QAT stopped in epoch {epoch + 1}, step {step + 1}"
        remedy = "lower --lr; the PTQ checkpoint is intact"
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise UserError(f"{where}: the loss is {loss}; {remedy}")
        if self._first is None:
            self._first = loss
        elif min(loss, self._last) > DIVERGED * self._first:
            raise UserError(f"{where}: the loss grew from {self._first:.4g} to {loss:.4g}; {remedy}")
        self._last = loss
