"""An ONNX as a predictor."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np

from quantization.data.input_size import input_size
from quantization.errors import UserError, missing_package
from quantization.evaluation.detections import Boxes
from quantization.evaluation.output_format import Output, output_format
from quantization.onnx_graph.origin import read_origin
from quantization.onnx_graph.session import session_options
from quantization.options import OUTPUT_FORMATS

PLUGIN = "EfficientNMS_TRT"
NO_ONNX = "InvalidProtobuf"  # error of ONNX Runtime for a file that is none


class CannotRun(UserError):
    """ONNX Runtime is not here, or refuses what may be a good file: it has a plugin, or is newer."""


class OnnxPredictor:
    """A predictor on ONNX Runtime, on the GPU where its package can; batches are padded for a graph with a fixed one.

    Args:
        file: the ONNX.
        asked: what it puts out, one of ``OUTPUT_FORMATS``.

    Attributes:
        format: how its outputs are read.
        classes: number of classes; None where neither the outputs nor the names tell.
        class_names: what the ONNX calls them; None if it does not say. Upstream's export.py writes them.
        origin: the upstream that it was exported from; None if it does not say.

    Raises:
        CannotRun: there is no ONNX Runtime, or it refuses the graph.
        UserError: the file is missing or no ONNX, or it is no detection network.
    """

    def __init__(self, file: str, asked: str = OUTPUT_FORMATS[0]) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise CannotRun(f"{file} cannot be run here ({error}): pip install {missing_package(error)}") from error
        if not Path(file).is_file():
            raise UserError(f"{file} does not exist")
        available = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                file,
                session_options(),
                providers=[name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available],
            )
        except Exception as error:  # onnxruntime has no public base class for its own errors
            if PLUGIN in str(error):
                raise CannotRun(
                    f"{file} has {PLUGIN}, a plugin of TensorRT that ONNX Runtime cannot run: build an engine and give it "
                    "to eval-engine.py, or export with --end2end onnx"
                ) from error
            refusal = UserError if type(error).__name__ == NO_ONNX else CannotRun
            raise refusal(f"{file} is no model for ONNX Runtime: {str(error).splitlines()[0]}") from error
        entry = self._session.get_inputs()[0]
        if len(entry.shape) != 4:
            raise UserError(f"{file} does not take images (B, 3, H, W): export it with the export command")
        self._file, self._name = file, entry.name
        self._batch = entry.shape[0] if isinstance(entry.shape[0], int) else None
        self._size = tuple(entry.shape[2:])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.origin = read_origin(metadata)
        names = _class_names(metadata.get("names"))
        outputs = [
            Output(output.name, tuple(side if isinstance(side, int) else None for side in output.shape or ()))
            for output in self._session.get_outputs()
        ]
        self.format = output_format(outputs, len(names) if names else None, asked, file)
        self.classes = self.format.classes if self.format.classes is not None else len(names or ()) or None
        self.class_names = names if names and len(names) == self.classes else None

    def image_size(self, asked: int | None) -> tuple[int, int]:
        """H and W of the input, see ``input_size``."""
        height, width = (side if isinstance(side, int) else None for side in self._size)
        return input_size((height, width), asked, self._file)

    def __call__(self, images: np.ndarray) -> Boxes:
        """Boxes of images (B, 3, H, W), any B."""
        return self.format.boxes(self.run(images))

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """All outputs of images (B, 3, H, W), any B."""
        step = self._batch or len(images)
        missing = -len(images) % step
        padded = np.concatenate((images, np.zeros((missing, *images.shape[1:]), images.dtype))) if missing else images
        parts = [
            self._session.run(None, {self._name: padded[start : start + step]}) for start in range(0, len(padded), step)
        ]
        return [np.concatenate(output)[: len(images)] for output in zip(*parts)]


def _class_names(text: str | None) -> list[str] | None:
    """The names in an ONNX's metadata, which is a dictionary or list in Python's spelling; None: there are none."""
    try:
        names = ast.literal_eval(text or "")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None  # from another exporter
    if isinstance(names, dict):
        names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names
