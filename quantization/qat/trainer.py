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
from torch import Tensor

from quantization.data.tensors import Labelled
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.options import QatOptions
from quantization.progress_bar import progress_bar
from quantization.qat.batch_parts import BatchParts
from quantization.qat.losses import Distillation, TaskLoss
from quantization.qat.progress import Progress
from quantization.qat.quantizers import QatQuantizers
from quantization.qat.weight_average import WeightAverage
from quantization.signals import SIGNALS

LOG = logging.getLogger("quantization")
AMP_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "off": None}
CHECK_EVERY = 10  # steps between looks at the loss on the host: each look waits for the GPU
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

    def __init__(self, model: Any, teacher: Any, options: QatOptions, task: TaskLoss | None = None) -> None:
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
        self.parts = BatchParts()

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
            images: (B, 3, H, W), floats in 0..1 on the model's device; with many processes this one's of the batch.
            lr: learning rate.
            targets: what the task's loss wants, on the same device.

        Returns:
            The loss of the whole batch before the step, shape (), on the device.
        """
        self.parts.begin(len(images), 0 if targets is None else len(targets))
        if not len(images):
            images = images.new_zeros(1, *images.shape[1:])  # counts nothing, but all processes take the same way
        with torch.autocast(self.device.type, dtype=self.amp or torch.bfloat16, enabled=self.amp is not None):
            with torch.no_grad():
                self.teacher(images)
            self.model(images)
            loss = own = self.loss.take(self.parts.divisors, float(self.parts.images > 0))
            task = torch.zeros_like(own)
            if self.task is not None:
                assert targets is not None  # where there is a task, batches have labels
                task = self.task.take(targets, self.parts.whole)
                loss = own + task
        self.quantizers.forget()
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.scaler.scale(loss).backward()
        total = self.parts.join(self._trained(), own.detach()) + task.detach()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return total

    def agree(self) -> None:
        """Give all processes rank 0's weights and scales: nothing that a GPU rounds in its own way adds up."""
        if RANKS.many:
            average = [] if self.average is None else self.average.state()["average"]
            tensors = [*self._trained(), *self.model.buffers(), *average]
            RANKS.exchange()
            with torch.no_grad():
                RANKS.same(tensor for tensor in tensors if tensor.is_floating_point())

    def state(self) -> dict[str, Any]:
        """What training has changed, for ``restore``: tensors in lists and dictionaries, not copied."""
        return {
            "parameters": [parameter.detach() for parameter in self._trained()],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, of a trainer with the same options, of the same model after PTQ."""
        for parameter, value in zip(self._trained(), state["parameters"]):
            parameter.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.restore(state["average"])

    def _trained(self) -> Iterator[Tensor]:
        """Weights, then learned scales."""
        for group in self.optimizer.param_groups:
            yield from group["params"]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context in which the model is as it would be saved: averaged weights, learned scales as amax, eval mode."""
        with self.average.applied() if self.average is not None else contextlib.nullcontext():
            self.quantizers.write_back()
            self.model.eval()
            yield


def finetune(
    trainer: Trainer,
    batches: Iterable[Labelled],
    after_epoch: Callable[[int, float, float], None],
    progress: Progress | None = None,
    safe_point: Callable[[bool], None] = lambda important: None,
) -> None:
    """Train for as many epochs and steps as the trainer's options say.

    Args:
        trainer: of the model, which is changed in place.
        batches: on the model's device; iterated as often as needed. The first iteration gives those after ``progress``.
        after_epoch: called with epoch (from 0), mean loss and last learning rate; saves what is worth keeping.
        progress: where to go on; kept up to date. None: at the start.
        safe_point: called where the state of the training can be kept: after each step, and after each epoch; with True
            before and after an epoch's evaluation.

    Raises:
        Diverged: the loss is NaN or has grown ``DIVERGED``-fold.
    """
    progress, options = progress or Progress(), trainer.options
    while progress.epoch < options.epochs:
        _train_epoch(trainer, batches, progress, safe_point)
        with trainer.evaluating():
            lr = _rate(options, progress.epoch, options.steps - 1)
            after_epoch(progress.epoch, float(progress.total) / options.steps, lr)
        progress.epoch, progress.step, progress.total = progress.epoch + 1, 0, 0.0
        safe_point(True)
        SIGNALS.check()


def _rate(options: QatOptions, epoch: int, step: int) -> float:
    """Learning rate of a step of an epoch, both from 0."""
    done = (epoch * options.steps + step) / (options.epochs * options.steps)
    return learning_rate(done, options.lr, options.schedule)


def _train_epoch(
    trainer: Trainer, batches: Iterable[Labelled], progress: Progress, safe_point: Callable[[bool], None]
) -> None:
    """The steps of an epoch that are left."""
    options, epoch = trainer.options, progress.epoch
    left = options.steps - progress.step
    if not left:
        return
    progress.total = torch.as_tensor(progress.total, dtype=torch.float32, device=trainer.device)
    title = f"QAT {epoch + 1}/{options.epochs}"
    steps = progress_bar(take(batches, left), total=options.steps, title=title, unit="step", done=progress.step)
    with SIGNALS.deferred(), trainer.training():
        trainer.agree()
        for images, targets in steps:
            lr = _rate(options, epoch, progress.step)
            loss = trainer.step(images, lr, targets)
            progress.total = progress.total + loss
            progress.step += 1
            if (progress.step - 1) % CHECK_EVERY == 0 or progress.step == options.steps:
                progress.watch.check(float(loss), epoch, progress.step - 1)
                steps.set_postfix(loss=f"{float(loss):.4g}", lr=f"{lr:.1e}")
            safe_point(progress.step == options.steps)
            if trainer.parts.stopping:
                SIGNALS.check()


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
