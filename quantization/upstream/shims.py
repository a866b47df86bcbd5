"""Shims that let an unmodified checkout of either upstream run on current packages.

Each says what it fixes and for which versions, and does nothing where it is not needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
import types
from typing import Any

from quantization.options import LOWEST_OPSET

LOG = logging.getLogger("quantization")


def install_shims(scripts: bool = False) -> None:
    """Install all shims. Safe to call more than once.

    Args:
        scripts: upstream's own scripts will run, which load checkpoints and label caches without torch's guard against
            pickles that run code; the bundle's own commands keep that guard (upstream.safe_load).
    """
    shim_pkg_resources()
    shim_numpy()
    shim_pillow()
    if scripts:
        shim_torch_load()
    shim_torch_onnx()
    shim_torchvision()


def shim_pkg_resources() -> None:
    """Setuptools 82 and newer have no pkg_resources, which both upstreams import for version checks.

    Kept long: it is one stand-in module, with the classes and functions that belong to it.
    """
    if "pkg_resources" in sys.modules or importlib.util.find_spec("pkg_resources") is not None:
        return
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.version import Version

    class DistributionNotFound(Exception):
        def __init__(self, req: Requirement) -> None:
            super().__init__(f"{req} is not installed")
            self.req = req

    class VersionConflict(DistributionNotFound):
        pass

    def require(requirements: Any) -> None:
        for item in [requirements] if isinstance(requirements, str) else requirements:
            requirement = Requirement(str(item))
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                raise DistributionNotFound(requirement) from None
            if not requirement.specifier.contains(version, prereleases=True):
                raise VersionConflict(requirement)

    def parse_requirements(lines: Any) -> list[Requirement]:
        lines = lines.splitlines() if isinstance(lines, str) else lines
        stripped = (line.split("#")[0].strip() for line in lines)
        return [Requirement(line) for line in stripped if line and not line.startswith("-")]

    module = types.ModuleType("pkg_resources")
    module.__dict__.update(
        parse_version=Version,
        parse_requirements=parse_requirements,
        require=require,
        DistributionNotFound=DistributionNotFound,
        VersionConflict=VersionConflict,
    )
    sys.modules["pkg_resources"] = module


def shim_numpy() -> None:
    """Numpy 1.24 dropped np.int and np.float, numpy 2.4 dropped np.trapz; yolov7's data set and both metrics use them."""
    import numpy as np

    for name, value in (("int", int), ("float", float), ("trapz", getattr(np, "trapezoid", None))):
        if name not in vars(np) and value is not None:
            setattr(np, name, value)


def shim_pillow() -> None:
    """Pillow 10 dropped FreeTypeFont.getsize, which both upstreams' plots call."""
    from PIL import ImageFont

    if not hasattr(ImageFont.FreeTypeFont, "getsize"):
        setattr(ImageFont.FreeTypeFont, "getsize", lambda font, text: font.getbbox(text)[2:])


def shim_torch_load() -> None:
    """Torch 2.6 made weights_only=True the default of torch.load; checkpoints and label caches are pickled objects."""
    import torch

    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        return
    original = torch.load
    if getattr(original, "quant_tools", False):
        return

    def load(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("weights_only", False)
        return original(*args, **kwargs)

    load.quant_tools = True  # type: ignore[attr-defined]
    torch.load = load


def shim_torch_onnx() -> None:
    """Torch 2.9 made the dynamo exporter the default; upstream's export.py is written for the TorchScript one.

    It asks for opset 12 too, in which per-channel Q/DQ do not exist: torch refuses a quantized model with its whole graph.
    """
    import torch

    from quantization.quantizers.switches import have_quantizers

    original = torch.onnx.export
    if getattr(original, "quant_tools", False):
        return
    has_dynamo = "dynamo" in inspect.signature(original).parameters

    def export(model: Any, *args: Any, **kwargs: Any) -> Any:
        if has_dynamo:
            kwargs.setdefault("dynamo", False)
        lowest = LOWEST_OPSET["torchscript"]
        if (kwargs.get("opset_version") or lowest) < lowest and have_quantizers(model):
            LOG.warning(
                "WARNING: the checkpoint is quantized and Q/DQ need opset %d, not %d: %d is used. For TensorRT, export with "
                "scripts/qat-yolov5.py or qat-yolov7.py, which also clean and check the graph",
                *(lowest, kwargs["opset_version"], lowest),
            )
            kwargs["opset_version"] = lowest
        return original(model, *args, **kwargs)

    export.quant_tools = True  # type: ignore[attr-defined]
    torch.onnx.export = export


def shim_torchvision() -> None:
    """Torchvision whose compiled operators do not fit torch (a CPU-only torch, a Jetson's torch) fails to import.

    Its Python half is all that upstream needs, but for nms: that one is declared to torch, so that the import works,
    and done in numpy.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return  # upstream's own import error names the missing package
    if hasattr(sys.modules.get("torchvision"), "quant_tools_library"):
        return
    try:
        torchvision = importlib.import_module("torchvision")
        torchvision.extension._assert_has_ops()  # noqa: SLF001  there is no public question
        return
    except (ImportError, RuntimeError, OSError) as error:
        LOG.debug("torchvision without its operators: %s", error)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # halves left behind by the failed import
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):  # the two that torchvision's import describes to torch, qnms since 0.28
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision = importlib.import_module("torchvision")
    from quantization.evaluation.nms import nms as box_nms

    def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
        kept = box_nms(boxes.detach().cpu().numpy(), scores.detach().cpu().numpy(), iou_threshold)
        return torch.from_numpy(kept).to(boxes.device)

    torchvision.ops.nms = torchvision.ops.boxes.nms = nms
    setattr(torchvision, "quant_tools_library", library)  # keeps the declaration alive


def lift_time_limit() -> None:
    """Both upstreams' non_max_suppression leaves out the rest of a batch after a time limit, 1 s for 10 images in yolov5.

    On a busy CPU that lowers the mAP that val.py prints (0.343 to 0.283 on COCO images). It looks at the clock when an
    image is done, so it never leaves out anything of one image: in the checkout on ``sys.path`` it gets one at a time.
    """
    import torch

    if importlib.util.find_spec("utils") is None or importlib.util.find_spec("utils.general") is None:
        return
    general: Any = importlib.import_module("utils.general")
    original = getattr(general, "non_max_suppression", None)
    if original is None or hasattr(original, "quant_tools"):
        return
    signature = inspect.signature(original)

    def non_max_suppression(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
        call = signature.bind(*args, **kwargs).arguments
        prediction, labels = call.pop("prediction"), call.pop("labels", ())
        if isinstance(prediction, (list, tuple)):
            prediction = prediction[0]
        images = range(len(prediction))
        return [
            original(prediction=prediction[i : i + 1], labels=labels[i : i + 1] if labels else (), **call)[0]
            for i in images
        ]

    setattr(non_max_suppression, "quant_tools", True)
    setattr(general, "non_max_suppression", non_max_suppression)
