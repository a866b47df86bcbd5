"""What differs between YOLOv5 and YOLOv7, and what the bundle needs to know of their models.

Upstream's own scripts run with the shims through ``python -m quantization.upstream val.py --weights qat.pt ...``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Iterable, Protocol, cast

from quantization.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


class YoloNet(Protocol):
    """What both upstreams' networks have beyond ``nn.Module``.

    Attributes:
        model: the layers; the last one is the detection head.
        stride: (levels,) pixels per cell of the head's maps.
    """

    model: nn.Sequential
    stride: Tensor


def layers_of(model: nn.Module) -> nn.Sequential:
    """The layers of an upstream's network; the last one is the detection head."""
    return cast("YoloNet", model).model


def largest_stride(model: nn.Module) -> int:
    """Pixels per cell of the smallest map; image sides are multiples of it."""
    return int(cast("YoloNet", model).stride.max())


def head_types() -> tuple[type[Any], ...]:
    """Upstream's detection head classes."""
    import models.yolo as yolo

    names = ("Detect", "Segment", "IDetect", "IAuxDetect", "IKeypoint", "IBin")
    return tuple(getattr(yolo, name) for name in names if hasattr(yolo, name))


def block_types(names: Iterable[str]) -> dict[type[Any], str]:
    """Upstream's classes of these names, as far as it has them, with their names."""
    import models.common as common
    import models.experimental as experimental

    found = {getattr(module, name, None): name for name in names for module in (common, experimental)}
    return {kind: name for kind, name in found.items() if isinstance(kind, type)}


def head_path(model: Any) -> str:
    """Path of the detection head, whatever its index.

    Raises:
        UserError: the model has none, or several.
    """
    paths = [path for path, module in model.named_modules() if isinstance(module, head_types())]
    if len(paths) != 1:
        raise UserError(
            f"the model has {len(paths)} detection heads, one is expected: it is no detection model of this upstream"
        )
    return paths[0]


def head_policy(model: Any) -> list[str]:
    """The ``--ignore-policy`` that keeps the network's last layers in float, whatever the head's index.

    Their outputs are boxes in pixels, scores, mask coefficients and prototypes: they need finer steps than INT8 has, and
    no INT8 layer follows that would gain. Of a segmentation head the layers before the last ones are quantized.
    """
    path = re.escape(head_path(model))
    if hasattr(model.get_submodule(head_path(model)), "proto"):
        return [rf"{path}\.m", rf"{path}\.proto\.cv3"]
    return [path]


def shared_detect_convs(model: Any) -> list[str]:
    """Patterns for the detect convolutions whose input another layer of the network reads too, from the largest map on."""
    path = head_path(model)
    head = model.get_submodule(path)
    sources = [head.f] if isinstance(head.f, int) else head.f
    read: set[int] = set()
    for layer in model.model:
        if layer is not head:
            read.update(f if f >= 0 else layer.i + f for f in ([layer.f] if isinstance(layer.f, int) else layer.f))
    return [rf"{re.escape(path)}\.m\.{level}" for level, source in enumerate(sources[: head.nl]) if source in read]


def class_count(model: Any) -> int:
    """Number of classes that the head detects."""
    return int(model.get_submodule(head_path(model)).nc)


def class_names(model: Any) -> list[str]:
    """What the checkpoint calls the classes, in their order; empty if it does not say."""
    names = getattr(model, "names", None) or []
    return [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else [str(name) for name in names]


def every_class_name(model: Any) -> list[str]:
    """``class_names``; where the checkpoint does not name all classes, "class0" and so on."""
    names, count = class_names(model), class_count(model)
    return names if len(names) == count else [f"class{number}" for number in range(count)]


def fuse(model: Any) -> Any:
    """Fold BatchNorm, RepConv branches and implicit knowledge into convolutions, in place; a second call changes nothing.

    yolov7's IDetect folds its implicit tensors into the head's convolutions but keeps them, so upstream's next load
    would fold them again: they are set to neutral values.
    """
    import torch

    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        model.fuse()
        head = model.get_submodule(head_path(model))
        for name, neutral in (("ia", 0.0), ("im", 1.0)):
            for implicit in getattr(head, name, ()):
                implicit.implicit.fill_(neutral)
    return model


def mend_old_checkpoint(model: Any) -> None:
    """Attributes that older torch or upstream versions did not save, as upstream's attempt_load sets them."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None
        elif isinstance(module, (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)):
            module.inplace = getattr(module, "inplace", True)
        if (
            isinstance(module, head_types())
            and not hasattr(type(module), "concat")
            and not isinstance(getattr(module, "anchor_grid", []), list)
        ):
            delattr(module, "anchor_grid")
            module.anchor_grid = [module.anchors.new_zeros(1)] * module.nl


def forget_grids(model: Any) -> None:
    """Let the head rebuild its grids of cell positions.

    They are neither parameters nor buffers: yolov7's stay on the device that they were made on when the model moves, and
    are made again only for images of another size.
    """
    import torch

    head = model.get_submodule(head_path(model))
    if hasattr(head, "grid"):
        head.grid = [torch.zeros(1)] * head.nl  # as when the head was built


def set_export_mode(model: Any, on: bool) -> Callable[[], None]:
    """Make the head return one tensor (B, boxes, 5 + classes), as upstream's own export does.

    Returns:
        A function that puts the head back as it was.
    """
    head = model.get_submodule(head_path(model))
    name = "concat" if hasattr(type(head), "concat") else "export"  # yolov7's export=True gives raw maps
    before = getattr(head, name)
    setattr(head, name, on)
    return lambda: setattr(head, name, before)
