"""From a quantized model to a checked Q/DQ ONNX."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export import fp16
from quantization.export.cleanup import clean, respell_float_silu
from quantization.export.quantizer import ExportQuantizer
from quantization.files import atomic_write
from quantization.quantizers.backend import named_quantizers, swapped
from quantization.quantizers.switches import uncalibrated
from quantization.upstream import model as upstream

LOG = logging.getLogger("quantization")
MIN_OPSET = {"torchscript": 13, "dynamo": 18}  # per-channel Q/DQ came with opset 13


@dataclass
class Difference:
    """ONNX Runtime against torch on the same random images.

    Attributes:
        largest: largest absolute difference of the outputs, in their units (pixels, probabilities).
        mean: mean absolute difference.
        scale: largest absolute value of torch's output.
    """

    largest: float
    mean: float
    scale: float


class ExportOutputs(nn.Module):
    """The model in export mode with its outputs as a tuple: detections, and mask prototypes of a segmentation net."""

    names = ("outputs", "protos")

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W) to (B, boxes, 5 + classes), (B, m, h, w)
        output = self.model(images)
        return tuple(output) if isinstance(output, (tuple, list)) else (output,)


@contextlib.contextmanager
def export_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, head as for upstream's own export; both restored."""
    training = model.training
    restore = upstream.set_export_mode(model, True)
    model.eval()
    try:
        yield
    finally:
        restore()
        model.train(training)


def export_graph(
    model: nn.Module,
    file: str,
    size: tuple[int, int],
    batch: int = 1,
    dynamic: bool = False,
    opset: int | None = None,
    exporter: str = "torchscript",
) -> None:
    """Write the model as it is to ``file``, input ``images`` (B, 3, H, W), output ``outputs`` (and ``protos``).

    Args:
        model: quantizers in it must be calibrated or swapped for markers.
        file: the ONNX file.
        size: H and W, multiples of the stride.
        batch: batch size, the example's only if ``dynamic``.
        dynamic: leave the batch size open.
        opset: ONNX operator set; None: the least one that has per-channel Q/DQ.
        exporter: a key of ``MIN_OPSET``.
    """
    images = torch.zeros(batch, 3, *size, device=next(model.parameters()).device)
    wrapper = ExportOutputs(model).eval()
    with export_mode(model), torch.no_grad():
        outputs = wrapper(images)  # lets the head make the grid of this size before it is traced
    names = list(ExportOutputs.names[: len(outputs)])
    options: Any = {"opset_version": opset or MIN_OPSET[exporter], "input_names": ["images"], "output_names": names}
    if exporter == "dynamo":
        if not hasattr(torch.onnx, "ops"):
            raise UserError(f"--exporter dynamo needs torch 2.8 or newer, this is {torch.__version__}: use torchscript")
        options.update(dynamo=True, verbose=False)
        if dynamic:
            images = torch.zeros(max(2, batch), 3, *size, device=images.device)  # size 1 would be taken for fixed
            options["dynamic_shapes"] = {"images": {0: torch.export.Dim("batch", min=1)}}
    else:
        if "dynamo" in inspect.signature(torch.onnx.export).parameters:
            options["dynamo"] = False
        options["dynamic_axes"] = {name: {0: "batch"} for name in ("images", *names)} if dynamic else None
    with export_mode(model), torch.no_grad(), warnings.catch_warnings():
        # both upstreams compare grid shapes in Python, which the tracer warns about each time; the TorchScript
        # exporter announces its own deprecation
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        torch.onnx.export(wrapper, (images,), file, **options)
    set_output_shapes(file, [tuple(output.shape[1:]) for output in outputs])


def set_output_shapes(file: str, shapes: list[tuple[int, ...]]) -> None:
    """Write down the outputs' shapes behind the batch, which the exporter leaves open although they are fixed."""
    graph = onnx.load(file)
    for value, shape in zip(graph.graph.output, shapes):
        for dim, size in zip(value.type.tensor_type.shape.dim[1:], shape):
            dim.dim_value = size
    onnx.save(graph, file)


def export_onnx(
    model: nn.Module,
    file: str,
    size: tuple[int, int],
    batch: int = 1,
    dynamic: bool = False,
    opset: int | None = None,
    exporter: str = "torchscript",
    simplify: bool = False,
    fp16_remainder: bool = False,
) -> Difference:
    """Write a Q/DQ ONNX, check it, and compare it with torch by ONNX Runtime.

    Args:
        model: a float or a calibrated quantized model.
        file: appears only once every check passed.
        size, batch, dynamic, opset, exporter: see ``export_graph``.
        simplify: run onnxsim over the graph; Q/DQ stay.
        fp16_remainder: FP16 for what is not quantized (quantization.fp16).

    Raises:
        UserError: a quantizer was never calibrated, or the exported graph is refused or differs from torch.
    """
    missing = uncalibrated(model)
    if missing:
        raise UserError(
            f"{len(missing)} quantizers have no usable scale ({missing[0]} ...): the model was never "
            "calibrated; run the quantize command first"
        )
    expected = count_quantize_nodes(model)
    if fp16_remainder and opset is None:
        opset = max(fp16.MIN_OPSET, MIN_OPSET[exporter])
    with atomic_write(file) as temporary:
        with swapped(model, lambda path, name, quantizer: ExportQuantizer(quantizer, exporter == "dynamo")):
            export_graph(model, temporary, size, batch, dynamic, opset, exporter)
        graph = onnx.load(temporary)
        clean(graph)
        if simplify:
            graph = simplify_graph(graph)
        respell_float_silu(graph)
        if fp16_remainder:
            graph = fp16.convert_remainder(graph)
        found = sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
        if bool(found) != bool(expected):
            raise UserError(
                f"the export has {found} QuantizeLinear nodes where the model has {expected} quantizers: "
                "report this with your torch and onnx versions"
            )
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, temporary)
        difference = compare(model, temporary, size, batch)
    LOG.info(
        "%s: opset %d, %d nodes, %d QuantizeLinear; ONNX Runtime differs from torch by %.3g at most (mean %.3g, "
        "output up to %.3g)",
        file,
        graph.opset_import[0].version,
        len(graph.graph.node),
        found,
        difference.largest,
        difference.mean,
        difference.scale,
    )
    return difference


def count_quantize_nodes(model: nn.Module) -> int:
    """Number of quantizers that work."""
    return sum(not quantizer._disabled for _, _, _, quantizer in named_quantizers(model))


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Onnxsim's simplification; weights keep their QuantizeLinear.

    Raises:
        UserError: onnxsim is not installed, or its own check failed.
    """
    try:
        import onnxsim
    except ImportError as error:
        raise UserError("--simplify needs onnxsim: pip install onnxsim, or leave the option out") from error
    simplified, passed = onnxsim.simplify(graph)
    if not passed:
        raise UserError("--simplify: onnxsim's check failed; export without it")
    return simplified


def compare(model: nn.Module, file: str, size: tuple[int, int], batch: int = 1) -> Difference:
    """Run the same random images through torch and ONNX Runtime.

    Raises:
        UserError: shapes differ, or an output is not finite.
    """
    images = np.random.default_rng(0).random((batch, 3, *size), dtype=np.float32)
    device = next(model.parameters()).device
    with export_mode(model), torch.no_grad():
        expected = [
            output.float().cpu().numpy() for output in ExportOutputs(model)(torch.from_numpy(images).to(device))
        ]
    actual = OnnxPredictor(file).run(images)
    if [output.shape for output in actual] != [output.shape for output in expected]:
        raise UserError(
            f"ONNX Runtime gives the shapes {[output.shape for output in actual]}, torch "
            f"{[output.shape for output in expected]}"
        )
    if not all(np.isfinite(output).all() for output in actual):
        raise UserError("ONNX Runtime gives NaN or infinite outputs: the checkpoint is damaged")
    errors = np.concatenate([np.abs(a - b).ravel() for a, b in zip(actual, expected)])
    return Difference(float(errors.max()), float(errors.mean()), max(float(np.abs(part).max()) for part in expected))
