"""A TensorRT engine as a predictor."""

from __future__ import annotations

import numpy as np

from quantization.engine.cuda import Cuda
from quantization.engine.runtime import Engine
from quantization.errors import UserError
from quantization.evaluation.detections import Boxes
from quantization.evaluation.output_format import Output, output_format
from quantization.options import OUTPUT_FORMATS


class EnginePredictor:
    """A predictor on TensorRT.

    Args:
        file: the plan.
        asked: what it puts out, one of ``OUTPUT_FORMATS``.

    Attributes:
        format: how its outputs are read.
        classes: number of classes; None where the outputs do not tell.
        size: height and width of the input.

    Raises:
        UserError: the plan cannot be loaded, or it is no detection network.
    """

    def __init__(self, file: str, asked: str = OUTPUT_FORMATS[0]) -> None:
        self._engine = Engine.load(file, Cuda())
        shape = self._engine.opt_shape
        if len(shape) != 4:
            raise UserError(f"{file} takes {shape}, not images (B, 3, H, W): build it from the export command's ONNX")
        outputs = [Output(name, tuple(self._engine.context.get_tensor_shape(name))) for name in self._engine.outputs]
        self.format = output_format(outputs, None, asked, file)
        self.classes = self.format.classes
        self.size: tuple[int, int] = (shape[2], shape[3])

    def __call__(self, images: np.ndarray) -> Boxes:
        """Boxes of images (B, 3, H, W), any B."""
        return self.format.boxes(list(self._engine.infer(images).values()))
