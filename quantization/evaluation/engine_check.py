"""An engine's boxes against those of ONNX Runtime from the ONNX that it was built from, on a few images. No torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Callable

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
            return not_compared(error)
        images = comparison_images(self.source, predict.size, *([DRAWN] if self.source is None else []))
        try:
            expected = self._reference(onnx, images)
        except UserError as error:  # a plugin, a machine without ONNX Runtime
            return not_compared(error)
        locate = functools.partial(where_wrong, onnx, images, rebuild) if self.locate else None
        return compared_boxes(predict, images, expected, self.source, locate)

    def _reference(self, onnx: str, images: np.ndarray) -> Boxes:
        """ONNX Runtime's boxes, computed once for all engines of one file and size."""
        key = (onnx, images.shape[2:])
        if key not in self._expected:
            self._expected[key] = one_by_one(OnnxPredictor(onnx), images)
        return self._expected[key]


def not_compared(error: UserError) -> EngineBoxes:
    """What is known of an engine's boxes where an error keeps them from a comparison."""
    return EngineBoxes(NOT_COMPARED.format(error), False, False)


def compared_boxes(
    predict: EnginePredictor | OnnxPredictor,
    images: np.ndarray,
    expected: Boxes,
    source: NamedImages | None,
    locate: Callable[[], str] | None = None,
) -> EngineBoxes:
    """Compare what an engine finds with what ONNX Runtime found.

    Args:
        predict: runs the engine.
        images: (B, 3, H, W).
        expected: ONNX Runtime's boxes of them.
        source: of the images; None: drawn ones, whose differences are no error.
        locate: says where the difference starts, asked where boxes are wrong.

    Raises:
        CudaError: the engine does not run.
    """
    is_real = source is not None
    try:
        actual = one_by_one(predict, images)
    except CudaError:
        raise  # that says nothing of its boxes
    except UserError as error:  # a box whose corners are swapped, a class that is none
        return EngineBoxes(f"WRONG, what it gives cannot be read: {error}", is_real, is_real)
    if not is_real and isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):
        found = row_differences(expected, actual)
    else:
        found = found_differences(expected, actual)
    where = "drawn images (--check-images names real ones)" if source is None else source.name
    text, are_wrong = f"against ONNX Runtime on {where}: {found}", is_real and found.is_suspicious
    if are_wrong and locate is not None:
        text += f"; {locate()}"
    return EngineBoxes(text, are_wrong, is_real and found.is_enough)


def one_by_one(predict: EnginePredictor | OnnxPredictor, images: np.ndarray) -> Boxes:
    """Boxes of all images; they are given to the network one after the other, for the memory's sake."""
    return joined([predict(images[place : place + 1]) for place in range(len(images))])
