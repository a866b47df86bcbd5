"""A torch model as a predictor."""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch
from torch import nn

from quantization.upstream.model import class_count


def torch_predictor(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A predictor on a torch model, which must be in eval mode."""
    device = next(model.parameters()).device
    numbers = 5 + class_count(model)  # behind them a segmentation network's boxes have mask coefficients

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output = model(torch.from_numpy(images).to(device))[0]
        return output[..., :numbers].float().cpu().numpy()

    return predict
