"""Small networks as either ONNX exporter writes them, at the torch that is installed."""

from __future__ import annotations

import inspect
import tempfile
from typing import Any

import onnx
import pytest
import torch
from torch import nn


def exported(model: nn.Module, exporter: str = "torchscript") -> onnx.ModelProto:
    """The ONNX of a network that takes (1, 3, 8, 8).

    Args:
        model: with the wrapper that makes its layers' names those of a real export.
        exporter: "torchscript", or "dynamo", where the test is skipped if this torch cannot export the quantizers by it.
    """
    dynamo = exporter == "dynamo"
    if dynamo and not hasattr(torch.onnx, "ops"):
        pytest.skip("torch before 2.8")
    options: dict[str, Any] = {"opset_version": 18, "verbose": False} if dynamo else {"opset_version": 13}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = dynamo
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/net.onnx"
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, 8, 8),), file, **options)
        return onnx.load(file)
