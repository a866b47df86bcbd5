"""An engine's boxes against those of ONNX Runtime from the ONNX that it was built from, on a few images. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from quantization.engine.bench import EngineBoxes, Rebuild
from quantization.engine.cuda import CudaError
from quantization.engine.runtime import Engine
from quantization.errors import UserError
from quantization.evaluation.box_differences import row_differences
from quantization.evaluation.comparison import NamedImages, comparison_images, found_differences
from quantization.evaluation.detections import Boxes, joined
from quantization.evaluation.engine_fault import where_wrong
from quantization.evaluation.engine_predictor import EnginePredictor
from quantization.evaluation.onnx_predictor import OnnxPredictor

DRAWN = 4  # images, where the user names none
NOT_COMPARED = "not compared with ONNX Runtime ({})"


@dataclass
class EngineCheck:
    """Compares engines with their ONNX.

    Attributes:
        source: images, see ``comparison_images``. On drawn ones nothing is found, so that rows are compared; their
            differences are told, but are no error, since those of a network with random weights know no bounds.
        locate: say where the difference starts, where boxes are wrong.
    """

    source: NamedImages | None = None
    locate: bool = False
    _expected: dict[tuple[str, tuple[int, ...]], Boxes] = field(default_factory=dict)

    def __call__(self, engine: Engine, onnx: str, rebuild: Rebuild) -> EngineBoxes:
        """Compare one engine; a text says why where it cannot be.

        Args:
            engine: of a static or dynamic batch.
            onnx: what it was built from.
            rebuild: builds another ONNX as this engine was built.

        Raises:
            UserError: an image cannot be read.
            CudaError: the engine does not run.
        """
        try:
            predict = EnginePredictor(engine)
        except UserError as error:
            return EngineBoxes(NOT_COMPARED.format(error), False)
        images = comparison_images(self.source, predict.size, *([DRAWN] if self.source is None else []))
        try:
            expected = self._reference(onnx, images)
        except (UserError, ImportError) as error:  # a plugin, a machine without ONNX Runtime
            return EngineBoxes(NOT_COMPARED.format(error), False)
        try:
            actual = one_by_one(predict, images)
        except CudaError:
            raise  # that says nothing of its boxes
        except UserError as error:  # a box whose corners are swapped, a class that is none
            return EngineBoxes(f"WRONG, what it gives cannot be read: {error}", self.source is not None)
        if self.source is None and isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):
            found = row_differences(expected, actual)
        else:
            found = found_differences(expected, actual)
        where = "drawn images (--check-images names real ones)" if self.source is None else self.source.name
        text, are_wrong = f"against ONNX Runtime on {where}: {found}", self.source is not None and found.is_suspicious
        if are_wrong and self.locate:
            text += f"; {where_wrong(onnx, images, rebuild)}"
        return EngineBoxes(text, are_wrong)

    def _reference(self, onnx: str, images: np.ndarray) -> Boxes:
        """ONNX Runtime's boxes, computed once for all engines of one file and size."""
        key = (onnx, images.shape[2:])
        if key not in self._expected:
            self._expected[key] = one_by_one(OnnxPredictor(onnx), images)
        return self._expected[key]


def one_by_one(predict: EnginePredictor | OnnxPredictor, images: np.ndarray) -> Boxes:
    """Boxes of all images; they are given to the network one after the other, for the memory's sake."""
    return joined([predict(images[place : place + 1]) for place in range(len(images))])
