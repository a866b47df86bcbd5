"""A torch model as a predictor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quantization.data.tensors import as_floats
from quantization.evaluation.detecting import Thresholds
from quantization.upstream.model import class_count
from quantization.upstream.suppression import device_detections


class TorchPredictor:
    """A predictor on a torch model.

    Args:
        model: in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._numbers = 5 + class_count(model)  # behind them a segmentation network's boxes have mask coefficients

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Boxes (B, boxes, 5 + classes) of images (B, 3, H, W), float32 in 0..1."""
        return self.boxes(torch.from_numpy(images).to(self._device)).cpu().numpy()

    @torch.no_grad()
    def boxes(self, images: Tensor) -> Tensor:
        """The same on the model's device."""
        return self._model(images)[0][..., : self._numbers].float()


class DeviceDetector(TorchPredictor):
    """A predictor that evaluation gives bytes, and asks for detections: images go to the device so, boxes never leave it."""

    def forward(self, images: np.ndarray) -> Tensor:
        """Boxes (B, boxes, 5 + classes) of images (B, 3, H, W) uint8, on the device."""
        return self.boxes(as_floats(images, self._device))

    def detect(self, output: Tensor, thresholds: Thresholds) -> list[np.ndarray]:
        """What ``detections`` gives for each image of an output."""
        return device_detections(output, thresholds)


def torch_predictor(model: nn.Module) -> TorchPredictor:
    """A predictor on a torch model, which must be in eval mode; on a CPU, numpy finds the boxes with fewer comparisons."""
    return (TorchPredictor if next(model.parameters()).device.type == "cpu" else DeviceDetector)(model)
