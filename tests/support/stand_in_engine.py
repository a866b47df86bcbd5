"""A TensorRT engine whose work ONNX Runtime does, for tests of what is done with its outputs."""

from __future__ import annotations

from typing import Callable

import numpy as np
import onnxruntime

SHAPE = (4, 3, 64, 64)


class StandIn:
    """Has of ``engine.runtime.Engine`` what predictors use; a "plan" is an ONNX with the input ``images``.

    Attributes:
        corrupt: changes the outputs by name; None: they are right.
    """

    opt_shape = SHAPE
    corrupt: Callable[[dict[str, np.ndarray]], None] | None = None

    def __init__(self, file: str) -> None:
        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.context, self.name = self, file
        self.outputs = [output.name for output in self._session.get_outputs()]

    @classmethod
    def load(cls, file: str, cuda: object) -> StandIn:
        """As the engine's."""
        return cls(file)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """As the context's."""
        return tuple(self.infer(np.zeros(SHAPE, np.float32))[name].shape)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """As the engine's."""
        outputs = dict(zip(self.outputs, self._session.run(None, {"images": images})))
        if self.corrupt is not None:
            self.corrupt(outputs)
        return outputs
