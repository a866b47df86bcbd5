"""An ONNX in ONNX Runtime or a TensorRT plan, opened, with what it tells of its network. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from quantization.data.input_size import input_size
from quantization.engine.plans import plan_origin
from quantization.evaluation.engine_predictor import EnginePredictor
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.onnx_graph.origin import Origin


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that is ready to run.

    Attributes:
        predict: runs it.
        classes: number of classes; None: the file does not tell.
        names: of the classes; empty if the file does not tell.
        size: height and width of its input, pixels.
        origin: the upstream that it was exported from; None if the file, or the record beside a plan, does not tell.
    """

    predict: OnnxPredictor | EnginePredictor
    classes: int | None
    names: tuple[str, ...]
    size: tuple[int, int]
    origin: Origin | None


def open_network(file: str, output_format: str, imgsz: int | None) -> OpenedNetwork:
    """Open an ONNX or a plan.

    Args:
        file: .onnx, or a plan built on this GPU.
        output_format: what it puts out, one of ``OUTPUT_FORMATS``.
        imgsz: image side, where the graph leaves it open; None: it was not given.

    Raises:
        UserError: it cannot be loaded, is no detection network, or is one of another image size.
    """
    if file.endswith(".onnx"):
        runtime = OnnxPredictor(file, output_format)
        names = tuple(runtime.class_names or ())
        return OpenedNetwork(runtime, runtime.classes, names, runtime.image_size(imgsz), runtime.origin)
    engine = EnginePredictor.load(file, output_format)
    return OpenedNetwork(engine, engine.classes, (), input_size(engine.size, imgsz, file), plan_origin(file))
