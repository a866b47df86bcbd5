"""A TensorRT engine whose work ONNX Runtime does, for tests of what is done with its outputs."""

from __future__ import annotations

from typing import Callable

import numpy as np
import onnxruntime
import pytest

from quantization.evaluation import engine_predictor

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


def let_engines_stand_in(
    monkeypatch: pytest.MonkeyPatch, corrupt: Callable[[dict[str, np.ndarray]], None] | None = None
) -> None:
    """Let predictors load stand-ins whose outputs ``corrupt`` changes."""
    monkeypatch.setattr(engine_predictor, "Engine", StandIn)
    monkeypatch.setattr(engine_predictor, "Cuda", lambda: None)
    monkeypatch.setattr(StandIn, "corrupt", None if corrupt is None else staticmethod(corrupt))


def stretch(outputs: dict[str, np.ndarray]) -> None:
    """What a wrong kernel makes of the widths; scores stay."""
    for name, columns in (("outputs", slice(2, 3)), ("det_boxes", slice(2, 3))):
        if name in outputs:
            outputs[name][..., columns] *= 1.5
