"""Upstream's own training loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable

from quantization.errors import UserError
from quantization.upstream.checkout import UPSTREAMS
from quantization.upstream.model import head_path


def detection_loss(name: str, model: Any, imgsz: int) -> Callable[[list[Any], Any], Any]:
    """Upstream's own training loss, of an image.

    Args:
        name: "yolov5" or "yolov7".
        model: of this upstream. Its hyper-parameters are those that it was trained with, which train.py leaves in the
            checkpoint, or else the upstream's default, scaled as train.py does.
        imgsz: longer image side in training.

    Returns:
        A function of the head's raw maps, (B, anchors, H, W, 5 + classes) each, and of targets (N, 6): image, class,
        centre x, centre y, width, height relative to the input. It gives shape ().

    Raises:
        UserError: the head has another loss.
    """
    from utils.loss import ComputeLoss

    head = model.get_submodule(head_path(model))
    if type(head).__name__ not in ("Detect", "IDetect", "IAuxDetect"):
        raise UserError(
            f"--task-weight needs a head with upstream's ComputeLoss, this one is a {type(head).__name__}: "
            "give --task-weight 0"
        )
    compute = ComputeLoss(
        SimpleNamespace(
            model=model.model, parameters=model.parameters, gr=1.0, hyp=hyper_parameters(name, model, imgsz)
        )
    )

    def loss(maps: list[Any], targets: Any) -> Any:
        return compute(maps[: head.nl], targets)[0].sum() / len(maps[0])  # an auxiliary head's maps come last

    return loss


def hyper_parameters(name: str, model: Any, imgsz: int) -> dict[str, Any]:
    """What ComputeLoss reads; see ``detection_loss``."""
    own = getattr(model, "hyp", None)
    if isinstance(own, dict) and {"box", "obj", "cls", "cls_pw", "obj_pw", "anchor_t", "fl_gamma"} <= set(own):
        return own
    head, gains = model.get_submodule(head_path(model)), UPSTREAMS[name].gains
    return {
        "box": gains["box"] * 3 / head.nl,
        "cls": gains["cls"] * head.nc / 80 * 3 / head.nl,
        "obj": gains["obj"] * (imgsz / 640) ** 2 * 3 / head.nl,
        "cls_pw": 1.0,
        "obj_pw": 1.0,
        "anchor_t": 4.0,
        "fl_gamma": 0.0,
    }
