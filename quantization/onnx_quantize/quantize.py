"""The pipeline of an ONNX: plan, ranges, Q/DQ nodes, one function per stage.

    float ONNX -> placement.choose_plan -> activations -> group_scales -> insertion -> clean-up -> preflight

Nothing here knows of the command line or of files.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any, Iterable

import numpy as np
from onnx import ModelProto

from quantization.errors import UserError
from quantization.onnx_graph.box_formula import respell_box_decode
from quantization.onnx_graph.cleanup import respell_float_silu
from quantization.onnx_graph.fp16 import convert_remainder
from quantization.onnx_quantize.activations import TensorRunner, collect_activations
from quantization.onnx_quantize.float_model import FloatModel
from quantization.onnx_quantize.insertion import PairWriter, channel_scales, scale_of
from quantization.onnx_quantize.options import OnnxCalibrationOptions, OnnxGraphOptions
from quantization.onnx_quantize.placement import choose_plan, has_branches
from quantization.onnx_quantize.plan import Plan, place_names
from quantization.options import LayerOptions
from quantization.preflight.qdq_graph import QdqGraph, Read
from quantization.preflight.subject import FLOAT_LAYERS
from quantization.ranges.group_scales import GroupScale, SharedTensors, group_scales
from quantization.ranges.histograms import Calibrator

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class OnnxScales:
    """What was decided for an ONNX.

    Attributes:
        graph: the float graph.
        plan: where Q/DQ go.
        groups: the reads that share a scale.
        scales: of each group.
        method: of the calibration.
    """

    graph: QdqGraph
    plan: Plan
    groups: list[list[Read]]
    scales: list[GroupScale]
    method: str

    @property
    def float_layers(self) -> dict[str, str]:
        """The layers with weights that stay float, and why."""
        return {self.graph.layer(position): reason for position, reason in self.plan.reasons.items()}

    def content(self) -> dict[str, Any]:
        """For the summary."""
        shared = [scale for scale in self.scales if len(scale.own) > 1]
        return {
            "calib_method": self.method,
            "groups": [place_names(self.graph, group) for group in self.groups],
            "amax": [scale.amax for scale in self.scales],
            "shared_scales": [{**asdict(scale), "ratio": scale.ratio} for scale in shared],
            "float_layers": self.float_layers,
        }


def plan_onnx(source: FloatModel, shape: tuple[int, int, int], options: LayerOptions) -> tuple[QdqGraph, Plan]:
    """Where Q/DQ go in a float model, and its graph; what stays float is logged with the reason.

    Args:
        source: the model.
        shape: C, H and W of the images.
        options: stem, head and policy.

    Raises:
        UserError: nothing is left to quantize, the policy is wrong, or a weight holds NaN or infinity.
    """
    graph = QdqGraph(source.for_images(shape))
    plan = choose_plan(graph, options)
    if not plan.weights:
        raise UserError(
            "no layer is left to quantize: check --ignore-policy, and that the ONNX holds a convolutional network"
        )
    for position in plan.weights:
        weight_of(graph, position)
    LOG.info("%d convolutions and %d sums are quantized", len(plan.weights), len(plan.sums))
    if plan.outputs:
        LOG.info("Quantized before their activation too: %s", ", ".join(map(graph.layer, plan.outputs)))
    layers: dict[str, dict[str, None]] = {}
    for position, reason in plan.reasons.items():
        layers.setdefault(reason, {})[graph.layer(position)] = None  # a layer that runs twice has two nodes
    for reason, names in layers.items():
        LOG.info("Left float: %s: %s", ", ".join(names), reason)
    return graph, plan


def calibrate_onnx(
    source: FloatModel,
    planned: tuple[QdqGraph, Plan],
    batches: Iterable[np.ndarray],
    total: int,
    options: OnnxCalibrationOptions,
) -> OnnxScales:
    """The scales of the activations.

    Args:
        source: the float model.
        planned: its graph and plan.
        batches: images (B, C, H, W) as the network takes them.
        total: number of images, for the progress bar.
        options: of the calibration.

    Raises:
        UserError: see ``activations.collect_activations``.
    """
    graph, plan = planned
    method = calibration_method(graph, options.method)
    groups = plan.groups(graph)
    shared: list[SharedTensors] = []
    calibrators: dict[str, Calibrator] = {}
    for reads in groups:
        shared.append(SharedTensors(method))
        for number, tensor in enumerate(dict.fromkeys(read.tensor for read in reads)):
            calibrators[tensor] = shared[-1].tensor(number)
            shared[-1].readers[number] = place_names(graph, [read for read in reads if read.tensor == tensor])
    order = {name: position for position, node in enumerate(source.model.graph.node) for name in node.output}
    tensors = sorted(calibrators, key=lambda tensor: order.get(tensor, -1))  # the input is no node's
    runner = TensorRunner(source.model, source.name, source.shape[0], tensors)
    collect_activations(runner, calibrators, (batch.astype(source.dtype, copy=False) for batch in batches), total)
    found = group_scales({str(number): group for number, group in enumerate(shared)}, options.group_scale)
    scales = [scale for scale in found.values() if scale is not None]
    assert len(scales) == len(groups)  # every tensor was seen
    for advice in filter(None, (scale.advice() for scale in scales)):
        LOG.warning("Scales: %s", advice)
    return OnnxScales(graph, plan, groups, scales, method)


def calibration_method(graph: QdqGraph, choice: str) -> str:
    """What ``--calib-method`` means for a network.

    Rare large values are what objects of a rare class are made of, and mse clips them. In networks whose head has branches that
    cost more than the finer steps gained; on a YOLOv5, less (docs/any-onnx.md, "Trained networks").
    """
    if choice != "auto":
        return choice
    return "max" if has_branches(graph) else "mse"


def write_pairs(source: FloatModel, found: OnnxScales, options: OnnxGraphOptions = OnnxGraphOptions()) -> ModelProto:
    """The Q/DQ model.

    Args:
        source: the float model.
        found: where Q/DQ go, and their scales.
        options: of the parts that are not quantized; the opset must allow what they ask for.

    Raises:
        UserError: a weight does not fit FP16.
    """
    result = ModelProto()
    result.CopyFrom(source.model)
    del result.graph.value_info[:]
    nodes = {node.output[0]: node for node in result.graph.node}
    graph, writer = found.graph, PairWriter(result)
    for reads, scale in zip(found.groups, found.scales):
        for read in reads:
            writer.read(nodes[graph.nodes[read.node].output[0]], read.index, read.tensor, scale_of(scale.amax))
    for position in found.plan.weights:
        node = nodes[graph.nodes[position].output[0]]
        axis = 1 if node.op_type == "ConvTranspose" else 0
        scales = channel_scales(weight_of(graph, position), axis)
        writer.read(node, 1, node.input[1], scales, axis)
    writer.finish()
    respell_float_silu(result)
    if options.decode == "formula" and respell_box_decode(result):
        LOG.info("The decode of the boxes is written as one matrix product (--decode)")
    entry = result.metadata_props.add()
    entry.key, entry.value = FLOAT_LAYERS, json.dumps(found.float_layers)
    return convert_remainder(result) if options.fp16_remainder else result


def weight_of(graph: QdqGraph, position: int) -> np.ndarray:
    """The weight of a layer that is quantized.

    Raises:
        UserError: it holds NaN or infinity.
    """
    weight = graph.onnx.constant(graph.nodes[position].input[1])
    assert weight is not None  # see ``candidates.refused_weight``
    if not np.isfinite(weight).all():
        raise UserError(f"layer {graph.layer(position)}: its weight holds NaN or infinity; the ONNX is damaged")
    return weight
