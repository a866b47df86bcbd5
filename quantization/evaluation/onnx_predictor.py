"""An ONNX as a predictor."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np

from quantization.errors import UserError


class OnnxPredictor:
    """A predictor on ONNX Runtime, on the GPU where its package can; batches are padded for a graph with a fixed one.

    Args:
        file: the ONNX.

    Attributes:
        classes: number of classes, from the output's last dimension.
        class_names: what the ONNX calls them; None if it does not say. Upstream's export.py writes them.

    Raises:
        UserError: the file is missing, ONNX Runtime refuses it, or it is no detection network.
    """

    def __init__(self, file: str) -> None:
        import onnxruntime

        if not Path(file).is_file():
            raise UserError(f"{file} does not exist")
        available = onnxruntime.get_available_providers()
        settings = onnxruntime.SessionOptions()
        # ONNX Runtime has threads of its own, as many as cores; several processes side by side would fight for them
        settings.intra_op_num_threads = int((os.environ.get("OMP_NUM_THREADS") or "0").split(",")[0])
        try:
            self._session = onnxruntime.InferenceSession(
                file,
                settings,
                providers=[name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available],
            )
        except Exception as error:  # onnxruntime has no public base class for its own errors
            raise UserError(f"{file} is no model for ONNX Runtime: {str(error).splitlines()[0]}") from error
        entry = self._session.get_inputs()[0]
        numbers, *protos = [
            (output.shape or [None])[-1 if not index else 1] for index, output in enumerate(self._session.get_outputs())
        ]
        if len(entry.shape) != 4 or not isinstance(numbers, int) or numbers < 6:
            raise UserError(
                f"{file} does not take (B, 3, H, W) and give (B, boxes, 5 + classes): export it with the export command"
            )
        self._name = entry.name
        self._batch = entry.shape[0] if isinstance(entry.shape[0], int) else None
        self._size = tuple(entry.shape[2:])
        self.classes = numbers - 5 - (protos[0] if protos else 0)  # a segmentation network's boxes end in coefficients
        self.class_names = _class_names(self._session.get_modelmeta().custom_metadata_map.get("names"), self.classes)

    def image_size(self, default: tuple[int, int]) -> tuple[int, int]:
        """H and W of the input; ``default`` where the graph leaves them open."""
        return self._size if all(isinstance(side, int) for side in self._size) else default

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Boxes (B, boxes, 5 + classes) of images (B, 3, H, W), any B."""
        return self.run(images)[0][..., : 5 + self.classes]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """All outputs of images (B, 3, H, W), any B."""
        step = self._batch or len(images)
        missing = -len(images) % step
        padded = np.concatenate((images, np.zeros((missing, *images.shape[1:]), images.dtype))) if missing else images
        parts = [
            self._session.run(None, {self._name: padded[start : start + step]}) for start in range(0, len(padded), step)
        ]
        return [np.concatenate(output)[: len(images)] for output in zip(*parts)]


def _class_names(text: str | None, classes: int) -> list[str] | None:
    """The names in an ONNX's metadata, which is a dictionary or list in Python's spelling."""
    try:
        names = ast.literal_eval(text or "")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None  # from another exporter
    if isinstance(names, dict):
        names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        return None
    return names
