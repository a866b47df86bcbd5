"""Which convolutions are quantized behind themselves too, in front of an activation that TensorRT does not fuse with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantization.onnx_graph.activations import UNFUSED
from quantization.onnx_graph.stem import IMAGE_CHANNELS
from quantization.quantizers.switches import disable_quantization
from quantization.upstream.model import largest_stride
from quantization.upstream.outputs import raw_outputs

UNFUSED_TYPES = tuple(getattr(nn, name) for name in UNFUSED)


def activation_pairs(model: nn.Module, choice: str) -> set[str]:
    """Paths of the convolutions that get a pair before their activation, as far as they are quantized.

    Args:
        model: a fused model of an upstream, in float or with quantizers.
        choice: one of ``options.ACTIVATION_PAIRS``.
    """
    if choice == "none":
        return set()
    found = convolutions_before(model, UNFUSED_TYPES)
    return found if choice == "all" else found & {image_convolution(model)}


def image_convolution(model: nn.Module) -> str | None:
    """Path of the convolution that reads the image; None if what it reads is rearranged first."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return path if module.in_channels <= IMAGE_CHANNELS else None
    return None


@torch.no_grad()
def convolutions_before(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[str]:
    """Paths of the convolutions whose output an activation of these kinds reads.

    Asked of a forward pass: upstream's blocks can share one activation object.

    Args:
        model: a fused model of an upstream in eval mode; its quantizers are not asked.
        kinds: of activations; exact types.
    """
    if not any(type(module) in kinds for module in model.modules()):
        return set()
    outputs: list[tuple[Tensor, str]] = []  # which keeps them, so that no other tensor takes their place
    found: set[str] = set()

    def note(path: str) -> Any:
        return lambda module, arguments, output: outputs.append((output, path))

    def look(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.update(path for output, path in outputs if output is arguments[0])

    handles = [
        module.register_forward_hook(note(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    handles += [module.register_forward_pre_hook(look) for module in model.modules() if type(module) in kinds]
    side = 2 * largest_stride(model)
    try:
        with disable_quantization(model):  # those without ranges refuse to round
            raw_outputs(model)(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found


def write_apart(model: nn.Module) -> None:
    """Let no activation overwrite the output of a convolution, which the quantizer between them was shown, in place."""
    for module in model.modules():
        if isinstance(module, UNFUSED_TYPES) and getattr(module, "inplace", False):
            module.inplace = False
