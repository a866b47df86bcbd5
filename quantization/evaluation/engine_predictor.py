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
        engine: loaded.
        asked: what it puts out, one of ``OUTPUT_FORMATS``.

    Attributes:
        format: how its outputs are read.
        classes: number of classes; None where the outputs do not tell.
        size: height and width of the input.

    Raises:
        UserError: it is no detection network.
    """

    def __init__(self, engine: Engine, asked: str = OUTPUT_FORMATS[0]) -> None:
        self._engine = engine
        shape = engine.opt_shape
        if len(shape) != 4:
            raise UserError(
                f"{engine.name} takes {shape}, not images (B, 3, H, W): build it from the export command's ONNX"
            )
        outputs = [Output(name, tuple(engine.context.get_tensor_shape(name))) for name in engine.outputs]
        self.format = output_format(outputs, None, asked, engine.name)
        self.classes = self.format.classes
        self.size: tuple[int, int] = (shape[2], shape[3])

    @classmethod
    def load(cls, file: str, asked: str = OUTPUT_FORMATS[0]) -> EnginePredictor:
        """From a plan file.

        Raises:
            UserError: the plan cannot be loaded, or it is no detection network.
        """
        return cls(Engine.load(file, Cuda()), asked)

    def __call__(self, images: np.ndarray) -> Boxes:
        """Boxes of images (B, 3, H, W), any B."""
        return self.format.boxes(list(self._engine.infer(images).values()))
