"""Tasks that need an upstream's modules: run in a checkout, ``python checkout_tasks.py TASK ARGUMENTS``.

Results are printed as JSON on the last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

from quantization.upstream import model as upstream
from quantization.upstream.loss import detection_loss, hyper_parameters
from quantization.upstream.shims import install_shims

install_shims(scripts=True)

import numpy as np
import torch
from torch import nn


def make_random(cfg: str, file: str, classes: str) -> None:
    """Save a checkpoint as train.py does, with random weights and BatchNorm statistics."""
    from random_net import random_net

    model = random_net(cfg, int(classes))
    torch.save({"model": model, "ema": None, "epoch": -1}, file)


def suppression(seed: str) -> Any:
    """Detections of random outputs by upstream's own functions and by ours; largest difference and counts."""
    from utils.general import non_max_suppression

    from quantization.evaluation.detections import detections

    generator = torch.Generator().manual_seed(int(seed))
    output = torch.rand(3, 400, 8, generator=generator)
    output[..., :2] *= 100
    output[..., 2:4] = 10 + 30 * output[..., 2:4]
    theirs = non_max_suppression(output.clone(), 0.05, 0.6, multi_label=True)
    differences, counts = [], []
    for image in range(3):
        ours = detections(output[image].numpy(), 0.05, 0.6)
        counts.append([len(ours), len(theirs[image])])
        if len(ours) == len(theirs[image]):
            differences.append(float(np.abs(ours - theirs[image].numpy()).max()))
    return {"counts": counts, "difference": max(differences)}


def equalized(name: str, file: str) -> Any:
    """How many channels equalization scales, and what it changes of the outputs."""
    from quantization.calibration.equalization import equalize
    from quantization.upstream import checkpoint

    model, _ = checkpoint.load(file, torch.device("cpu"), name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)[0].clone()
        scaled = equalize(model, [images])
        after = model(images)[0]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    head = model.get_submodule(upstream.head_path(model))
    return {
        "scaled": scaled,
        "difference": float((after - before).abs().max()),
        "largest": float(before.abs().max()),
        "channels": sum(module.out_channels for module in convolutions),
        "head": sum(module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)),
    }


def fuse_twice(file: str) -> Any:
    """Difference of outputs: unfused, fused, fused by upstream once more."""
    model = torch.load(file, weights_only=False)["model"].float().eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [model(images)[0].clone()]
        upstream.fuse(model)
        outputs.append(model(images)[0].clone())
        model.fuse()
        outputs.append(model(images)[0].clone())
    scale = float(outputs[0].abs().max())
    return [float((outputs[0] - outputs[1]).abs().max()) / scale, float((outputs[1] - outputs[2]).abs().max()) / scale]


def grids_after_load(file: str, spoilt: str) -> Any:
    """Whether a loaded model makes its grids anew: those in the checkpoint are NaN, as good as of another device."""
    from quantization.upstream import checkpoint

    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    content = torch.load(file, weights_only=False)
    model = content["model"].float().eval()
    with torch.no_grad():
        expected = model(images)[0].clone()
        model.model[-1].grid = [torch.full_like(grid, float("nan")) for grid in model.model[-1].grid]
        torch.save(content, spoilt)
        output = checkpoint.load(spoilt, torch.device("cpu"), "yolov7")[0](images)[0]
    return float((output - expected).abs().max() / expected.abs().max())


def labels_and_loss(name: str, listing: str) -> Any:
    """Targets by upstream's data set and by ours; upstream's loss of random maps, called directly and by ours."""
    from random_net import random_net
    from utils.loss import ComputeLoss

    from quantization.data.images import Loader
    from quantization.data.labels import batch_targets

    v5 = name == "yolov5"
    if v5:
        from utils.dataloaders import LoadImagesAndLabels
    else:
        from utils.datasets import LoadImagesAndLabels
    dataset = LoadImagesAndLabels(listing, 64, 3, augment=False, hyp={}, rect=False, stride=32)
    targets = dataset.collate_fn([dataset[index] for index in range(3)])[1]
    (batch,) = Loader([line for line in Path(listing).read_text().split()], (64, 64), 3)
    model = random_net("models/yolov5n.yaml" if v5 else "cfg/training/yolov7-tiny.yaml", 3).train()
    scaled = hyper_parameters(name, model, 320)
    gains = {"box": 0.3, "cls": 0.7, "obj": 0.5}
    model.hyp = {**gains, "cls_pw": 1.5, "obj_pw": 1.0, "anchor_t": 3.0, "fl_gamma": 0.0, "label_smoothing": 0.1}
    model.gr = 1.0
    maps = model(torch.rand(3, 3, 64, 64))
    loss = detection_loss(name, model, 64)(maps, targets)
    loss.backward()
    return {
        "ours": batch_targets(batch, (64, 64), 3).tolist(),
        "theirs": targets.tolist(),
        "loss": float(loss),
        "expected": float(ComputeLoss(model)(maps, targets)[0]) / 3,
        "default": scaled,
        "gradient": float(
            sum(parameter.grad.abs().sum() for parameter in model.parameters() if parameter.grad is not None)
        ),
    }


def checkpoint_facts(file: str) -> Any:
    """What a checkpoint of the bundle holds."""
    content = torch.load(file, weights_only=False)
    info = content["quant_tools"]
    quantizers = [module for module in content["model"].modules() if type(module).__name__ == "TensorQuantizer"]
    return {
        "keys": sorted(info),
        "groups": info["groups"],
        "quantizers": len(quantizers),
        "module": type(quantizers[0]).__module__,
        "calibrators": sum(getattr(quantizer, "_calibrator") is not None for quantizer in quantizers),
        "gradients": any(parameter.requires_grad for parameter in content["model"].parameters()),
    }


def damage(file: str, output: str, kind: str) -> None:
    """Save a damaged copy of a checkpoint."""
    content = torch.load(file, weights_only=False)
    model = content["model"] if content.get("ema") is None else content["ema"]
    first = next(
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and (kind != "uncalibrated" or hasattr(module, "_input_quantizer"))
    )
    if kind == "nan":
        with torch.no_grad():
            first.weight.fill_(float("nan"))
    elif kind == "uncalibrated":
        first.get_submodule("_input_quantizer").register_buffer("_amax", None)
    elif kind == "state_dict":
        content["model"] = content["ema"] = None
        content["model"] = model.state_dict()
    torch.save(content, output)


def main(arguments: list[str]) -> None:
    tasks = (
        make_random,
        suppression,
        equalized,
        fuse_twice,
        grids_after_load,
        labels_and_loss,
        checkpoint_facts,
        damage,
    )
    result = {task.__name__: task for task in tasks}[arguments[0]](*arguments[1:])
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
