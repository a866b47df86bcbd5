"""From a quantized model to a checked Q/DQ ONNX."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx
from torch import nn

from quantization.errors import UserError
from quantization.evaluation.comparison import NamedImages
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export.end2end import Suppression, append_suppression
from quantization.export.graph import export_graph
from quantization.export.quantizer import ExportQuantizer
from quantization.export.target import for_target, has_tanh_silu
from quantization.export.verification import Difference, compare, report_difference
from quantization.files import atomic_write
from quantization.onnx_graph import fp16
from quantization.onnx_graph.cleanup import clean, respell_float_silu
from quantization.onnx_graph.origin import write_origin
from quantization.options import ExportOptions
from quantization.quantizers.backend import bits, is_enabled, is_quantizing, named_quantizers, swapped
from quantization.quantizers.switches import uncalibrated
from quantization.ranges.levels import BITS
from quantization.upstream.checkout import UPSTREAMS
from quantization.upstream.model import class_count, class_names

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class Exported:
    """What ``export_onnx`` wrote.

    Attributes:
        graph: the file's content.
        difference: ONNX Runtime against torch.
    """

    graph: onnx.ModelProto
    difference: Difference


def export_onnx(
    model: nn.Module,
    file: str,
    options: ExportOptions = ExportOptions(),
    source: NamedImages | None = None,
    upstream: str = "",
) -> Exported:
    """Write a Q/DQ ONNX, check it, and compare it with torch by ONNX Runtime.

    Args:
        model: a float or a calibrated quantized model.
        file: written once; appears only when every check has passed.
        options: how.
        source: images to compare on, see ``comparison_images``.
        upstream: "yolov5" or "yolov7", for the metadata and, with ``--end2end``, the score of one class; empty: neither.

    Returns:
        The graph as written, and how far it is from torch.

    Raises:
        UserError: see ``check_quantizers``, or the exported graph is refused or differs from torch.
    """
    check_quantizers(model)
    graph = quantized_graph(model, options)
    found = check_quantize_nodes(graph, model)
    onnx.checker.check_model(graph, full_check=True)
    origin = UPSTREAMS[upstream].origin if upstream else None
    if origin is not None:
        write_origin(graph, origin)
    if options.end2end is None:
        name_classes(graph, model)
    with atomic_write(file) as temporary:
        onnx.save(graph, temporary)
        difference = compare(model, temporary, options, source)
        if options.end2end is not None:
            add_suppression(graph, temporary, model, options, origin is not None and origin.objectness_only)
    version, nodes = graph.opset_import[0].version, len(graph.graph.node)
    LOG.info("%s: opset %d, %d nodes, %d QuantizeLinear", file, version, nodes, found)
    report_difference(difference, file, source)
    return Exported(graph, difference)


def name_classes(graph: onnx.ModelProto, model: nn.Module) -> None:
    """Write the names of the classes into the metadata, as upstream's export.py does, if the checkpoint has them."""
    names = class_names(model)
    if names and len(names) == class_count(model):
        graph.metadata_props.add(key="names", value=str(dict(enumerate(names))))


def add_suppression(
    graph: onnx.ModelProto, file: str, model: nn.Module, options: ExportOptions, objectness_only: bool
) -> None:
    """Append what ``--end2end`` asks for, check it and write the file.

    Args:
        graph: of the rows; changed in place.
        file: written again.
        model: that the graph is of.
        options: how.
        objectness_only: with one class, the objectness is the score.

    Raises:
        UserError: see ``append_suppression``, or ONNX Runtime does not run it.
    """
    names = class_names(model)
    if len(names) != class_count(model):
        names = [str(number) for number in range(class_count(model))]
    suppression = Suppression(
        str(options.end2end), options.topk_all, options.iou_thres, options.conf_thres, tuple(names), objectness_only
    )
    append_suppression(graph, suppression)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, file)
    if options.end2end == "onnx":
        OnnxPredictor(file)(np.zeros((options.batch, 3, *options.shape), np.float32))


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

    Raises:
        UserError: see ``for_target``.
    """
    options = for_target(options)
    with swapped(model, lambda path, name, quantizer: ExportQuantizer(quantizer, options.exporter == "dynamo")):
        graph = export_graph(model, options)
    clean(graph)
    if options.simplify:
        graph = simplify_graph(graph)
    if has_tanh_silu(options):
        respell_float_silu(graph)
    return fp16.convert_remainder(graph) if options.fp16_remainder else graph


def check_quantize_nodes(graph: onnx.ModelProto, model: nn.Module) -> int:
    """Number of QuantizeLinear nodes.

    Raises:
        UserError: there are none though quantizers work, or the other way round.
    """
    found = sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    expected = sum(is_enabled(quantizer) for _, _, _, quantizer in named_quantizers(model))
    if bool(found) != bool(expected):
        raise UserError(
            f"the export has {found} QuantizeLinear nodes where the model has {expected} quantizers: "
            "report this with your torch and onnx versions"
        )
    return found


def simplify_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify by onnxsim; weights keep their QuantizeLinear.

    Raises:
        UserError: onnxsim's own check failed.
    """
    import onnxsim

    simplified, passed = onnxsim.simplify(graph)
    if not passed:
        raise UserError("--simplify: onnxsim's check failed; export without it")
    return simplified
