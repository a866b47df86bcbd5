"""Upstream's networks with random weights, for figures that depend on the structure alone. Runs in a checkout."""

from __future__ import annotations

from typing import Any


def random_net(cfg: str, classes: int, seed: int = 0) -> Any:
    """An unfused network with random weights, BatchNorm statistics, biases and implicit knowledge.

    The exporter would merge equal biases, as it never does in a trained network.

    Args:
        cfg: configuration file, relative to the checkout.
        classes: number of classes.
        seed: for torch's generator.
    """
    import torch
    from models.yolo import Model

    torch.manual_seed(seed)
    model = Model(cfg, ch=3, nc=classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None  # upstream's all track them
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif type(module).__name__ in ("ImplicitA", "ImplicitM"):
            torch.nn.init.normal_(module.implicit, float(module.implicit.mean()), 0.1)
    model.nc, model.names = classes, [f"class {number}" for number in range(classes)]
    return model


def quantized_copy(model: Any) -> Any:
    """A copy of a float network, quantized as by the quantize command's defaults, with shared scales; not calibrated.

    Args:
        model: fused; on any device.
    """
    import copy

    from quantization import quantize
    from quantization.placement.insert import replace_to_quantization_module

    device = next(model.parameters()).device
    student = copy.deepcopy(model).cpu()
    quantize.initialize("native")
    replace_to_quantization_module(student)
    quantize.apply_custom_rules_to_quantizer(student)
    return student.to(device)
