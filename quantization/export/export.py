"""From a quantized model to a checked Q/DQ ONNX."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch import nn

from quantization.errors import UserError
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export.graph import ExportOutputs, export_graph, export_mode
from quantization.export.quantizer import ExportQuantizer
from quantization.files import atomic_write
from quantization.onnx_graph import fp16
from quantization.onnx_graph.cleanup import clean, respell_float_silu
from quantization.options import LOWEST_OPSET, ExportOptions
from quantization.quantizers.backend import bits, is_enabled, is_quantizing, named_quantizers, swapped
from quantization.quantizers.switches import uncalibrated
from quantization.ranges.levels import BITS

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Exported:
    """What ``export_onnx`` wrote.

    Attributes:
        graph: the file's content.
        difference: ONNX Runtime against torch.
    """

    graph: onnx.ModelProto
    difference: Difference


def export_onnx(model: nn.Module, file: str, options: ExportOptions = ExportOptions()) -> Exported:
    """Write a Q/DQ ONNX, check it, and compare it with torch by ONNX Runtime.

    Args:
        model: a float or a calibrated quantized model.
        file: written once; appears only when every check has passed.
        options: how.

    Returns:
        The graph as written, and how far it is from torch.

    Raises:
        UserError: see ``check_quantizers``, or the exported graph is refused or differs from torch.
    """
    check_quantizers(model)
    graph = quantized_graph(model, options)
    found = sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    expected = count_quantize_nodes(model)
    if bool(found) != bool(expected):
        raise UserError(
            f"the export has {found} QuantizeLinear nodes where the model has {expected} quantizers: "
            "report this with your torch and onnx versions"
        )
    onnx.checker.check_model(graph, full_check=True)
    with atomic_write(file) as temporary:
        onnx.save(graph, temporary)
        difference = compare(model, temporary, options)
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
    return Exported(graph, difference)


def check_quantizers(model: nn.Module) -> None:
    """Refuse what no engine represents.

    Raises:
        UserError: a quantizer was never calibrated, or is not one of 8 bits.
    """
    missing = uncalibrated(model)
    if missing:
        raise UserError(
            f"{len(missing)} quantizers have no usable scale ({missing[0]} ...): the model was never "
            "calibrated; run the quantize command first"
        )
    for path, name, _, quantizer in named_quantizers(model):
        if is_quantizing(quantizer) and bits(quantizer) != BITS:
            raise UserError(f"{path}.{name} has {bits(quantizer)} bits: only quantizers of {BITS} bits can be exported")


def quantized_graph(model: nn.Module, options: ExportOptions) -> onnx.ModelProto:
    """The Q/DQ graph of a calibrated model, cleaned up, without any check of its values.

    Args:
        model: a float or a calibrated quantized model.
        options: how.
    """
    if options.fp16_remainder and options.opset is None:
        options = replace(options, opset=max(fp16.MIN_OPSET, LOWEST_OPSET[options.exporter]))
    with swapped(model, lambda path, name, quantizer: ExportQuantizer(quantizer, options.exporter == "dynamo")):
        graph = export_graph(model, options)
    clean(graph)
    if options.simplify:
        graph = simplify_graph(graph)
    respell_float_silu(graph)
    return fp16.convert_remainder(graph) if options.fp16_remainder else graph


def count_quantize_nodes(model: nn.Module) -> int:
    """Number of quantizers that work."""
    return sum(is_enabled(quantizer) for _, _, _, quantizer in named_quantizers(model))


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify by onnxsim; weights keep their QuantizeLinear.

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


def compare(model: nn.Module, file: str, options: ExportOptions) -> Difference:
    """Run the same random images through torch and ONNX Runtime.

    Args:
        model: that was exported.
        file: the ONNX.
        options: its ``shape`` and ``batch``.

    Raises:
        UserError: shapes differ, or an output is not finite.
    """
    images = np.random.default_rng(0).random((options.batch, 3, *options.shape), dtype=np.float32)
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
