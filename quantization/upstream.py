"""What differs between YOLOv5 and YOLOv7, and what the bundle needs to know of their models.

Upstream's own scripts run with the shims through ``python -m quantization.upstream val.py --weights qat.pt ...``.
"""

from __future__ import annotations

import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Type

from quantization.errors import UserError
from quantization.shims import install_shims


@dataclass(frozen=True)
class Upstream:
    """One of the two projects.

    Attributes:
        name: "yolov5" or "yolov7".
        markers: files, relative to the checkout, that only this project has.
        iou: its own default threshold of non-maximum suppression in evaluation.
        gains: of the parts of its loss, by default, for 80 classes, three levels and 640 pixels.
    """

    name: str
    markers: Tuple[str, ...]
    iou: float
    gains: Mapping[str, float]


UPSTREAMS = {
    "yolov5": Upstream("yolov5", ("models/yolo.py", "utils/dataloaders.py", "val.py"), 0.6,
                       {"box": 0.05, "cls": 0.5, "obj": 1.0}),
    "yolov7": Upstream("yolov7", ("models/yolo.py", "utils/datasets.py", "test.py"), 0.65,
                       {"box": 0.05, "cls": 0.3, "obj": 0.7}),
}


def enter_checkout(name: str, folder: Optional[Path] = None) -> Upstream:
    """Make the checkout's ``models`` and ``utils`` importable, with the shims installed.

    Args:
        name: "yolov5" or "yolov7".
        folder: the checkout; None: the folder that holds ``quantization``.

    Raises:
        UserError: the folder is no checkout, or one of the other project.
    """
    folder = Path(__file__).resolve().parents[1] if folder is None else folder
    wanted = UPSTREAMS[name]
    if not all((folder / marker).is_file() for marker in wanted.markers):
        for other in UPSTREAMS.values():
            if all((folder / marker).is_file() for marker in other.markers):
                raise UserError(f"{folder} is a {other.name} checkout: run scripts/qat-{other.name}.py there")
        raise UserError(f"{folder} is no {name} checkout ({', '.join(wanted.markers)} expected): "
                        f"run cp -r quantization scripts /path/to/{name}, and scripts/qat-{name}.py from there")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    install_shims()
    return wanted


def head_types() -> Tuple[Type[Any], ...]:
    """Upstream's detection head classes."""
    import models.yolo as yolo

    names = ("Detect", "Segment", "IDetect", "IAuxDetect", "IKeypoint", "IBin")
    return tuple(getattr(yolo, name) for name in names if hasattr(yolo, name))


def block_types(names: Iterable[str]) -> Dict[Type[Any], str]:
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
        raise UserError(f"the model has {len(paths)} detection heads, one is expected: it is no detection model of this "
                        "upstream")
    return paths[0]


def head_policy(model: Any) -> List[str]:
    """The ``--ignore-policy`` that keeps the network's last layers in float, whatever the head's index.

    Their outputs are boxes in pixels, scores, mask coefficients and prototypes: they need finer steps than INT8 has, and
    no INT8 layer follows that would gain. Of a segmentation head the layers before the last ones are quantized.
    """
    path = re.escape(head_path(model))
    if hasattr(model.get_submodule(head_path(model)), "proto"):
        return [rf"{path}\.m", rf"{path}\.proto\.cv3"]
    return [path]


def shared_detect_convs(model: Any) -> List[str]:
    """Patterns for the detect convolutions whose input another layer of the network reads too, from the largest map on."""
    path = head_path(model)
    head = model.get_submodule(path)
    sources = [head.f] if isinstance(head.f, int) else head.f
    read = set()
    for layer in model.model:
        if layer is not head:
            read.update(f if f >= 0 else layer.i + f for f in ([layer.f] if isinstance(layer.f, int) else layer.f))
    return [rf"{re.escape(path)}\.m\.{level}" for level, source in enumerate(sources[:head.nl]) if source in read]


def class_count(model: Any) -> int:
    """Number of classes that the head detects."""
    return int(model.get_submodule(head_path(model)).nc)


def detection_loss(name: str, model: Any, imgsz: int) -> Callable[[List[Any], Any], Any]:
    """Upstream's own training loss, of an image.

    Args:
        name: "yolov5" or "yolov7".
        model: of this upstream. Its hyper-parameters are those that it was trained with, which train.py leaves in the
            checkpoint, or else the upstream's default, scaled as train.py does.
        imgsz: longer image side in training.

    Returns:
        A function of the head's raw maps, (B, anchors, H, W, 5 + classes) each, and of targets (N, 6): image, class,
        centre x, centre y, width, height in parts of the input. It gives shape ().

    Raises:
        UserError: the head has another loss.
    """
    from utils.loss import ComputeLoss

    head = model.get_submodule(head_path(model))
    if type(head).__name__ not in ("Detect", "IDetect", "IAuxDetect"):
        raise UserError(f"--task-weight needs a head with upstream's ComputeLoss, this one is a {type(head).__name__}: "
                        "give --task-weight 0")
    compute = ComputeLoss(SimpleNamespace(model=model.model, parameters=model.parameters, gr=1.0,
                                          hyp=hyper_parameters(name, model, imgsz)))

    def loss(maps: List[Any], targets: Any) -> Any:
        return compute(maps[:head.nl], targets)[0].sum() / len(maps[0])  # an auxiliary head's maps come last

    return loss


def hyper_parameters(name: str, model: Any, imgsz: int) -> Dict[str, Any]:
    """What ComputeLoss reads; see ``detection_loss``."""
    own = getattr(model, "hyp", None)
    if isinstance(own, dict) and {"box", "obj", "cls", "cls_pw", "obj_pw", "anchor_t", "fl_gamma"} <= set(own):
        return own
    head, gains = model.get_submodule(head_path(model)), UPSTREAMS[name].gains
    return {"box": gains["box"] * 3 / head.nl, "cls": gains["cls"] * head.nc / 80 * 3 / head.nl,
            "obj": gains["obj"] * (imgsz / 640) ** 2 * 3 / head.nl, "cls_pw": 1.0, "obj_pw": 1.0, "anchor_t": 4.0,
            "fl_gamma": 0.0}


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
        if isinstance(module, head_types()) and not hasattr(type(module), "concat") \
                and not isinstance(getattr(module, "anchor_grid", []), list):
            delattr(module, "anchor_grid")
            module.anchor_grid = [module.anchors.new_zeros(1)] * module.nl


def forget_grids(model: Any) -> None:
    """Let the head make its grids of cell positions anew.

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


def main(arguments: List[str]) -> None:
    """Run an upstream script of the current folder with the shims installed."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m quantization.upstream SCRIPT.py [ARGUMENT ...]\n"
              "Runs train.py, val.py, test.py, export.py ... of the checkout in the current folder on current packages.")
        return
    if not Path(arguments[0]).is_file():
        raise UserError(f"{arguments[0]} does not exist: run this in an upstream checkout, with one of its scripts")
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    install_shims()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
