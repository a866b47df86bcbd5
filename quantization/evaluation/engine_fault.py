"""An engine with wrong boxes, built again with further outputs that are compared with ONNX Runtime's. No torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np
import onnx

from quantization.engine.bench import Rebuild
from quantization.errors import UserError
from quantization.evaluation.comparison import found_differences
from quantization.evaluation.detections import joined
from quantization.evaluation.locate import TensorProbe, find_start, with_outputs
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.onnx_graph.load import load_onnx
from quantization.onnx_graph.session import session_options

Tensors = Dict[str, np.ndarray]


def where_wrong(file: str, images: np.ndarray, rebuild: Rebuild) -> str:
    """Between which nodes an engine starts to differ from its ONNX, in words.

    Args:
        file: the ONNX.
        images: (B, 3, H, W), on which the engine's boxes are wrong.
        rebuild: builds another ONNX as that engine was built.
    """
    model = load_onnx(file)
    boxes_of, own = OnnxPredictor(file).format.boxes, [value.name for value in model.graph.output]

    def measure(tensors: Sequence[str]) -> TensorProbe:
        with tempfile.TemporaryDirectory() as folder:
            shown = str(Path(folder, "shown.onnx"))
            onnx.save(with_outputs(model, tensors), shown)
            reference = _reference(shown)
            with rebuild(shown) as engine:
                pairs = [(reference(image[None]), engine.infer(image[None])) for image in images]
        expected, actual = (joined([boxes_of([found[name] for name in own]) for found in side]) for side in zip(*pairs))
        errors = {name: relative_error([(first[name], second[name]) for first, second in pairs]) for name in tensors}
        return TensorProbe(errors, found_differences(expected, actual).is_suspicious)

    try:
        return find_start(model, measure)
    except UserError as error:  # this must not cost the report
        return f"where the difference starts cannot be told ({error})"


def relative_error(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Size of the differences over that of the references; infinite if something is not finite.

    Args:
        pairs: reference and candidate, of the same shape.
    """
    difference = sum(float(np.square(second.astype(np.float64) - first).sum()) for first, second in pairs)
    size = sum(float(np.square(first.astype(np.float64)).sum()) for first, _ in pairs)
    return float(np.sqrt(difference / max(size, 1e-30))) if np.isfinite(difference) else float("inf")


def _reference(file: str) -> Callable[[np.ndarray], Tensors]:
    """All outputs of one image by ONNX Runtime, which pads it where the graph has a fixed batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, session_options(), providers=["CPUExecutionProvider"])
    entry, names = session.get_inputs()[0], [output.name for output in session.get_outputs()]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1

    def run(image: np.ndarray) -> Tensors:
        padded = np.concatenate((image, np.zeros((batch - 1, *image.shape[1:]), image.dtype)))
        return {name: found[:1] for name, found in zip(names, session.run(None, {entry.name: padded}))}

    return run
