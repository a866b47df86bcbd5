"""Cross-layer equalization: give the channels of a tensor similar ranges, without changing what the network computes.

One scale for a whole tensor is set by its channel with the widest range, and rounds the others as coarsely. Behind ReLU
or LeakyReLU a channel may be divided by any s > 0 (f(x / s) = f(x) / s) and multiplied by it again in the weights that
read it: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019. SiLU is not
of that kind, so most of upstream's networks have no such channel; yolov7-tiny has nothing else.

Who reads a channel is asked of the network itself: every convolution gives constants instead of its outputs, one for
each channel, and what arrives unchanged at another convolution, through Concats, pools and Upsamples, is that channel.
"""

from __future__ import annotations

import itertools
from typing import Iterable, NamedTuple, cast

import torch
from torch import Tensor, nn

from quantization.distributed import RANKS
from quantization.signals import SIGNALS
from quantization.upstream.outputs import raw_outputs

# measured on yolov7-tiny: SQNR of the scores 30.2 dB by 0.75 and 29.7 by 1, where weights lose what activations win
POWER = 0.75
LEAST = 0.01  # of the widest range; a narrower channel is treated as if it had this one
BATCHES = 8  # whose largest values are the ranges
LARGE = 1024.0  # a power of two, so that scaling by it is exact


class Channels(NamedTuple):
    """The output channels of all convolutions, numbered in one row.

    Attributes:
        first: number of each convolution's first channel.
        read: the channel numbers at the inputs of each convolution; -1: none, or not this channel alone.
        free: which channels may be scaled, (channels,) bool: all that depends on them is in ``read``.
    """

    first: dict[nn.Conv2d, int]
    read: dict[nn.Conv2d, Tensor]
    free: Tensor


def tagged_inputs(
    model: nn.Module, image: Tensor, first: dict[nn.Conv2d, int], tags: Tensor
) -> dict[nn.Module, Tensor]:
    """The inputs (C,) of each convolution at the middle of its map, where every convolution's outputs are its tags.

    Args:
        model: see ``find_channels``.
        image: (1, 3, H, W).
        first: see ``Channels``.
        tags: (channels,).

    Returns:
        Also under ``model``: the sum of its output maps.
    """
    inputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x = arguments[0]
        # of a module that is called twice, the sum: no channel's own tag
        inputs[module] = x[0, :, x.shape[2] // 2, x.shape[3] // 2] + inputs.get(module, 0)

    def answer(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        begin = first[cast(nn.Conv2d, module)]
        part = tags[begin : begin + output.shape[1]]
        return part.view(1, -1, 1, 1).expand_as(output).clone(memory_format=torch.contiguous_format)

    handles = [
        handle
        for module in first
        for handle in (module.register_forward_pre_hook(note), module.register_forward_hook(answer))
    ]
    try:
        inputs[model] = torch.stack([part.sum() for part in raw_outputs(model)(image)]).sum()
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def find_channels(model: nn.Module, image: Tensor) -> Channels:
    """Number the channels and find out who reads them.

    Args:
        model: a fused float detection network in eval mode.
        image: (1, 3, H, W).
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    ends = list(itertools.accumulate(module.out_channels for module in convolutions))
    first = dict(zip(convolutions, [0, *ends]))
    # all different, between 1/2 and 1, where no activation but those of the ReLU family is the identity
    tags = 0.5 + 0.5 * torch.arange(ends[-1], device=image.device) / ends[-1]
    with torch.enable_grad():
        leaf = tags.clone().requires_grad_(True)
        inputs = tagged_inputs(model, image, first, leaf)
        with torch.no_grad():
            large, minus, large_minus = (
                tagged_inputs(model, image, first, factor * tags) for factor in (LARGE, -1.0, -LARGE)
            )
        rest = [inputs[model]]
        read = {}
        for module in [module for module in convolutions if module in inputs]:  # the others are not called
            x = inputs[module].detach()
            number = torch.searchsorted(tags, x).clamp(max=len(tags) - 1)
            # f(x / s) = f(x) / s on either side of zero
            known = (tags[number] == x) & (large[module] == LARGE * x) & (large_minus[module] == LARGE * minus[module])
            if module.groups > 1:  # its weights are not laid out by input channel
                known = torch.zeros_like(known)
            read[module] = torch.where(known, number, torch.full_like(number, -1))
            rest.append(inputs[module][~known].sum())
        total = torch.stack(rest).sum()
        other = torch.autograd.grad(total, leaf)[0] if total.requires_grad else torch.zeros_like(tags)
    free = torch.zeros(len(tags), dtype=torch.bool, device=image.device)
    for numbers in read.values():
        free[numbers[numbers >= 0]] = True
    return Channels(first, read, free & (other == 0))


@torch.no_grad()
def equalize(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Bring the ranges of channels together, in place, as far as the network computes the same.

    Args:
        model: a fused float detection network in eval mode.
        batches: images (B, 3, H, W), floats in 0..1 on the model's device; with many processes every n-th of all.

    Returns:
        How many channels were scaled.
    """
    images = itertools.islice(batches, len(range(RANKS.rank, BATCHES, RANKS.size)))
    first = next(images, None)
    shape = RANKS.exchange(None if first is None else first.shape)[0]
    if shape is None:
        return 0
    one = torch.zeros(1, *shape[1:], device=next(model.parameters()).device) if first is None else first[:1]
    channels = find_channels(model, one)
    if not bool(channels.free.any()):
        return 0  # most networks: no more images are read
    ranges = channel_ranges(model, images if first is None else itertools.chain([first], images), channels)
    with SIGNALS.deferred():
        RANKS.exchange()
        RANKS.largest(ranges)
    if not bool(torch.isfinite(ranges).all()):
        return 0  # a damaged checkpoint: calibration names the layer
    scales = (ranges / ranges[channels.free].max().clamp(min=1e-30)).clamp(min=LEAST) ** POWER
    scales[~channels.free] = 1.0
    for module, begin in channels.first.items():
        mine = scales[begin : begin + module.out_channels]
        module.weight /= mine.view(-1, 1, 1, 1)
        if module.bias is not None:
            module.bias /= mine
        numbers = channels.read.get(module)
        if numbers is not None and module.groups == 1:
            factors = torch.where(numbers >= 0, scales[numbers], torch.ones_like(scales[numbers]))
            module.weight *= factors.view(1, -1, 1, 1)
    return int(channels.free.sum())


def channel_ranges(model: nn.Module, batches: Iterable[Tensor], channels: Channels) -> Tensor:
    """The largest magnitude of each channel where convolutions read it, (channels,).

    Args:
        model: see ``find_channels``.
        batches: images (B, 3, H, W).
        channels: of the model.
    """
    ranges = torch.zeros(len(channels.free), device=channels.free.device)

    def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        numbers = channels.read[cast(nn.Conv2d, module)]
        largest = arguments[0].abs().amax((0, 2, 3))
        known = numbers >= 0
        # a channel can arrive twice: pools of it, in a Concat
        ranges.scatter_reduce_(0, numbers[known], largest[known], "amax")

    handles = [module.register_forward_pre_hook(look) for module in channels.read]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return ranges
