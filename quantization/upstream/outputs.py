"""A network's outputs as functions of images, to measure errors at: the head's raw maps, and what mAP sees of them."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Callable, Iterator, Sequence, cast

import torch
from torch import Tensor, nn

from quantization.upstream.model import YoloNet

Outputs = Callable[[Tensor], Sequence[Tensor]]
LEAST_ENERGY = 1e-30  # of outputs, and of an error relative to theirs: none is reported above 300 dB
LEAST = 1e-4  # of a sigmoid and of a box's side in cells: below, a relative error means nothing


def raw_outputs(model: nn.Module) -> Outputs:
    """The head's maps before the decode, as a function of images (B, 3, H, W).

    Args:
        model: fused; its head is in training mode for the call, the rest in eval mode.
    """
    head: Any = cast(YoloNet, model).model[-1]

    def forward(images: Tensor) -> list[Tensor]:
        was = head.training
        try:
            head.training = True
            maps = flatten(model(images))
        finally:
            head.training = was
        levels = getattr(head, "nl", len(maps))
        return maps[:levels] if len(maps) == 2 * levels else maps  # an auxiliary head's maps come last

    return forward


def flatten(outputs: Any) -> list[Tensor]:
    """The tensors of nested lists and tuples; none of anything else."""
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flatten(part)] if isinstance(outputs, (list, tuple)) else []


def weighted_outputs(model: nn.Module, box_weight: float = 1.0) -> Outputs:
    """Scores, and boxes weighted by score, of a detection network; raw maps of any other, see ``raw_outputs``.

    An error in a raw map counts the same in all cells, but mAP hardly depends on the many cells without an object.

    Args:
        model: as for ``raw_outputs``.
        box_weight: of the energy of an error in the boxes, that in the scores having 1.
    """
    head: Any = cast(YoloNet, model).model[-1]
    forward = raw_outputs(model)
    if not hasattr(head, "anchors") or hasattr(head, "bin_count"):  # yolov7's IBin codes boxes in another way
        return forward
    return lambda images: weigh(forward(images), head.anchors, int(head.nc), box_weight)


def weigh(maps: Sequence[Tensor], anchors: Tensor, classes: int, box_weight: float = 1.0) -> list[Tensor]:
    """What mAP sees of raw maps.

    With the sigmoids s of a prediction, both upstreams' heads decode the score s_object * s_class, the centre
    2 s_xy - 0.5 + cell and the sides (2 s_wh)^2 * anchor, in cells.

    Args:
        maps: one per level, (B, A, H, W, 5 + classes or more), A anchors per cell; maps of other shapes are passed on.
        anchors: (levels, A, 2) in cells.
        classes: number of classes.
        box_weight: see ``weighted_outputs``.

    Returns:
        Scores (B, predictions * classes); boxes (B, predictions * 4): the value of each is the prediction's highest
        score, and its change is that score times the change of the centre, relative to the box size, or of a side's
        logarithm, times the root of ``box_weight``; then the other maps.
    """
    scores, boxes, others = [], [], []
    for level, part in enumerate(maps):
        if part.dim() != 5:
            others.append(part)
            continue
        sigmoids = part.float().sigmoid()
        score = sigmoids[..., 4:5] * sigmoids[..., 5 : 5 + classes]
        weight = score.detach().amax(-1, keepdim=True)
        sides = (2 * sigmoids[..., 2:4].detach()) ** 2 * anchors[level].view(1, -1, 1, 1, 2)
        box = torch.cat(
            (2 * sigmoids[..., :2] / sides.clamp(min=LEAST), 2 * sigmoids[..., 2:4].clamp(min=LEAST).log()), -1
        )
        scores.append(score.flatten(1))
        boxes.append((weight * (1 + math.sqrt(box_weight) * (box - box.detach()))).flatten(1))
    return [torch.cat(scores, 1), torch.cat(boxes, 1), *others]


def random_directions(maps: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Normal random numbers of the maps' shapes, scaled so that the maps count alike and their energy per image is 1.

    Args:
        maps: (B, ...) each.
        generator: on their device.
    """
    return [
        torch.randn(part.shape, generator=generator, device=part.device)
        / (len(maps) * part.detach().square().sum() / len(part)).clamp_min(LEAST_ENERGY).sqrt()
        for part in maps
    ]


@contextlib.contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Context in which no parameter gets a gradient."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)
