"""Clean-up of an exported graph: what the exporter writes twice, or in a way that costs TensorRT layers."""

from __future__ import annotations

from typing import Dict, List, Tuple

import onnx
from onnx import NodeProto

from quantization.graph import OnnxGraph, attribute


def clean(model: onnx.ModelProto) -> None:
    """Fold Identity nodes and merge equal Q/DQ, in place."""
    fold_identities(model)
    merge_quantization(model)


def fold_identities(model: onnx.ModelProto) -> None:
    """Remove Identity nodes in place; their readers read the tensor behind them. One that makes an output stays.

    The exporter merges equal initializers through Identity, which TensorRT turns into layers of their own.
    """
    outputs = {output.name for output in model.graph.output}
    sources = {node.output[0]: node.input[0] for node in model.graph.node
               if node.op_type == "Identity" and node.output[0] not in outputs}
    replace(model, sources)


def merge_quantization(model: onnx.ModelProto) -> None:
    """Let readers of one tensor share one QuantizeLinear, and one DequantizeLinear behind it, where the scales agree.

    The TorchScript exporter writes a pair for every reader; which of them it merges depends on its version.
    """
    graph = OnnxGraph(model)
    first: Dict[Tuple[object, ...], str] = {}
    sources: Dict[str, str] = {}
    for node in graph.nodes:  # topological order: a Q is resolved before the DQ behind it
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        constants = [graph.constant(name) for name in node.input[1:]]
        if any(value is None for value in constants):
            continue
        data = sources.get(node.input[0], node.input[0])
        key = (node.op_type, data, attribute(node, "axis", 1),
               *((value.dtype.str, value.shape, value.tobytes()) for value in constants))
        if key in first:
            sources[node.output[0]] = first[key]
        else:
            first[key] = node.output[0]
    replace(model, sources)


def replace(model: onnx.ModelProto, sources: Dict[str, str]) -> None:
    """Remove the nodes that make the keys of ``sources``; their readers read the values instead."""

    def resolve(name: str) -> str:
        while name in sources:
            name = sources[name]
        return name

    kept: List[NodeProto] = []
    for node in model.graph.node:
        if node.output and node.output[0] in sources:
            continue
        for index, name in enumerate(node.input):
            node.input[index] = resolve(name)
        kept.append(node)
    read = {name for node in kept for name in node.input} | {output.name for output in model.graph.output}
    kept = [node for node in kept if node.op_type != "Constant" or node.output[0] in read]  # scales of the merged
    del model.graph.node[:]
    model.graph.node.extend(kept)
