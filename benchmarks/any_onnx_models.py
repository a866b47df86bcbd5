"""Float ONNX files of other detectors, with random weights: python any_onnx_models.py --help.

Needs the ``ultralytics`` package for YOLOv8 and its successors, and clones of YOLOv9 and YOLOX for those. The weights are
torch's initial ones; biases are random, and each batch normalization gets the statistics of real images, so that the
activations of all layers have the spread of a trained network. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import bundle  # noqa: F401  finds the bundle
import torch
from torch import nn

from quantization.data.dataset import image_files
from quantization.data.images import load_batches

CLASSES = 80
LOGITS = 2.0  # spread of the head's outputs


class Missing(types.ModuleType):
    """Stands in for a module of torchvision, of which exporting needs nothing, where it does not fit torch."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stub_torchvision() -> None:
    """Let networks be built where torchvision does not import beside this torch."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for part in ("", ".ops", ".transforms", ".transforms.functional", ".models", ".datasets"):
            name = f"torchvision{part}"
            module: Any = Missing(name)
            module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
            module.__version__ = "0.0.0"
            sys.modules[name] = module
            if part:
                parent, _, child = name.rpartition(".")
                setattr(sys.modules[parent], child, module)


@torch.no_grad()
def randomise(model: nn.Module, images: torch.Tensor, seed: int = 0) -> None:
    """Give a network random biases and the batch statistics of ``images``, (B, 3, H, W)."""
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.normal_(0, 0.3)
        norm.momentum = None  # the mean over all passes
        norm.reset_running_stats()
    model.eval()
    for norm in norms:
        norm.train()
    model(images)
    model.eval()
    for conv in model.modules():
        if not isinstance(conv, nn.Conv2d) or conv.bias is None:
            continue  # those without a norm, of the head, have one
        if conv.weight.requires_grad:
            conv.weight.mul_(LOGITS * (3 * conv.weight[0].numel()) ** -0.5 / conv.weight.std().clamp(min=1e-6))
        conv.bias.normal_(0, 0.5)


def export(model: nn.Module, images: torch.Tensor, file: Path, batch: int) -> None:
    """Write a network as upstream does: opset 17, a fixed batch."""
    torch.onnx.export(
        model.eval(),
        (images[:1].repeat(batch, 1, 1, 1),),
        str(file),
        opset_version=17,
        input_names=["images"],
        dynamo=False,
    )


def of_ultralytics(name: str, images: torch.Tensor, file: Path, batch: int) -> None:
    """A network of the package's own YAML, by its own exporter; YOLO26 with its final detections (B, 300, 6)."""
    package = importlib.import_module("ultralytics")
    network = package.YOLO(f"{name}.yaml", task="detect")
    randomise(network.model, images)
    # its exporter writes beside the YAML's name, and takes the head without suppression where nms is False
    written = network.export(format="onnx", imgsz=images.shape[2], batch=batch, simplify=False, opset=17, nms=False)
    Path(written).rename(file)


def of_yolov9(clone: Path, name: str, images: torch.Tensor, file: Path, batch: int) -> None:
    """A network of a YOLOv9 clone's YAML, with its main head alone."""
    sys.path.insert(0, str(clone))
    yolo = importlib.import_module("models.yolo")
    model = yolo.Model(str(clone / "models" / "detect" / f"{name}.yaml"), ch=3, nc=CLASSES)
    randomise(model, images)
    model.fuse()
    for module in model.modules():
        if hasattr(module, "export"):
            module.export = True
    export(model, images, file, batch)


def of_yolox(clone: Path, name: str, images: torch.Tensor, file: Path, batch: int) -> None:
    """YOLOX of a clone, decoded in the graph. Its pixels are BGR from 0 to 255."""
    sys.path.insert(0, str(clone))
    models = importlib.import_module("yolox.models")
    depth, width = {"yolox_nano": (0.33, 0.25), "yolox_tiny": (0.33, 0.375), "yolox_s": (0.33, 0.5)}[name]
    depthwise = name == "yolox_nano"
    backbone = models.YOLOPAFPN(depth, width, depthwise=depthwise)
    model = models.YOLOX(backbone, models.YOLOXHead(CLASSES, width, depthwise=depthwise))
    images = images.flip(1) * 255
    randomise(model, images)
    export(model, images, file, batch)


def main() -> None:
    """Write the networks that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="yolov8n, yolo11n, yolo26n, yolov9-t, gelan-t, yolox_nano ...")
    parser.add_argument("--images", required=True, help="folder of images, for the batch statistics")
    parser.add_argument("--save", type=Path, default=Path(), help="folder to write to")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=1, help="of the ONNX, fixed")
    parser.add_argument("--yolov9", type=Path, help="clone of YOLOv9")
    parser.add_argument("--yolox", type=Path, help="clone of YOLOX")
    options = parser.parse_args()
    stub_torchvision()
    files = image_files(options.images)[:8]
    images = torch.from_numpy(next(load_batches(files, (options.imgsz, options.imgsz), len(files))))
    for name in options.names:
        file = options.save / f"{name}.onnx"
        torch.manual_seed(0)
        if name.startswith("yolox"):
            of_yolox(options.yolox, name, images, file, options.batch)
        elif name.startswith(("yolov9-", "gelan")):
            of_yolov9(options.yolov9, name, images, file, options.batch)
        else:
            of_ultralytics(name, images, file, options.batch)
        print(file)


if __name__ == "__main__":
    main()
