"""Clean-up of an exported graph: what the exporter writes twice, or in a way that costs TensorRT layers.

onnx_ir's passes were tried (1.1): common subexpression elimination leaves the same number of Q and DQ, but merges other
nodes and their constants too, so the rest of the graph is no longer what the exporter wrote; and it needs Python 3.9.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from quantization.onnx_graph.graph import OnnxGraph, attribute


def clean(model: onnx.ModelProto) -> None:
    """Fold Identity nodes and merge equal Q/DQ, in place."""
    fold_identities(model)
    merge_quantization(model)


def fold_identities(model: onnx.ModelProto) -> None:
    """Remove Identity nodes in place; their readers read the tensor behind them. One that makes an output stays.

    The exporter merges equal initializers through Identity, which TensorRT turns into layers of their own.
    """
    outputs = {output.name for output in model.graph.output}
    sources = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.output[0] not in outputs
    }
    replace(model, sources)


def merge_quantization(model: onnx.ModelProto) -> None:
    """Let readers of one tensor share one QuantizeLinear, and one DequantizeLinear behind it, where the scales agree.

    The TorchScript exporter writes a pair for every reader; which of them it merges depends on its version.
    """
    graph = OnnxGraph(model)
    first: dict[tuple[object, ...], str] = {}
    sources: dict[str, str] = {}
    for node in graph.nodes:  # topological order: a Q is resolved before the DQ behind it
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        constants = [value for value in map(graph.constant, node.input[1:]) if value is not None]
        if len(constants) < len(node.input) - 1:
            continue  # a scale that is computed
        data = sources.get(node.input[0], node.input[0])
        key = (
            node.op_type,
            data,
            attribute(node, "axis", 1),
            *((value.dtype.str, value.shape, value.tobytes()) for value in constants),
        )
        if key in first:
            sources[node.output[0]] = first[key]
        else:
            first[key] = node.output[0]
    replace(model, sources)


def respell_float_silu(model: onnx.ModelProto) -> None:
    """Write SiLU as h + h * tanh(h) with h = x / 2 where it lies between a float convolution and a Q, in place.

    It is the same function, since sigmoid(x) = (1 + tanh(x / 2)) / 2. In a Q/DQ graph TensorRT 8.6 makes one layer of
    convolution and x * sigmoid(x), for which it has FP32 kernels alone; these it leaves apart, in FP16 (docs/placement.md).
    """
    graph = OnnxGraph(model)
    nodes: list[NodeProto] = []
    dropped: list[str] = []  # outputs of the multiplications that are rewritten
    for node in graph.nodes:
        product = _silu_before_quantize(graph, node)
        if product is None:
            nodes += [node] if node.output[0] not in dropped else []
            continue
        x, result = node.input[0], product.output[0]
        scope = node.name[: -len("Sigmoid")] if node.name.endswith("Sigmoid") else f"{node.name}/"
        half, tanh, scaled, factor = (f"{result}_{part}" for part in ("half", "tanh", "scaled", "factor"))
        model.graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, np.float32), factor))
        # engine.names knows these names
        for name, operator, inputs, output in (
            ("SiluHalf", "Mul", [x, factor], half),
            ("SiluTanh", "Tanh", [half], tanh),
            ("SiluScale", "Mul", [half, tanh], scaled),
            ("SiluAdd", "Add", [scaled, half], result),
        ):
            nodes.append(helper.make_node(operator, inputs, [output], name=f"{scope}{name}"))
            nodes[-1].metadata_props.extend(node.metadata_props)
        dropped.append(result)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _silu_before_quantize(graph: OnnxGraph, sigmoid: NodeProto) -> NodeProto | None:
    """The product of a SiLU that reads a convolution with a float weight, and that Q nodes alone read; else None."""
    if sigmoid.op_type != "Sigmoid":
        return None
    conv = graph.producer.get(sigmoid.input[0])
    readers = [node for node, _ in graph.consumers.get(sigmoid.output[0], [])]
    if conv is None or conv.op_type != "Conv" or not graph.is_constant(conv.input[1]) or len(readers) != 1:
        return None
    product = readers[0]
    after = [node.op_type for node, _ in graph.consumers.get(product.output[0], [])]
    if (
        product.op_type != "Mul"
        or set(product.input) != {sigmoid.input[0], sigmoid.output[0]}
        or len(graph.consumers[sigmoid.input[0]]) != 2
        or set(after) != {"QuantizeLinear"}
        or {sigmoid.input[0], sigmoid.output[0], product.output[0]} & graph.outputs
    ):
        return None
    return product


def replace(model: onnx.ModelProto, sources: dict[str, str]) -> None:
    """Remove the nodes that make the keys of ``sources``; their readers read the values instead."""

    def resolve(name: str) -> str:
        while name in sources:
            name = sources[name]
        return name

    kept: list[NodeProto] = []
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


def remove_unread_constants(model: onnx.ModelProto) -> None:
    """Drop Constant nodes and initializers that nothing reads any more, in place."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    nodes = [node for node in model.graph.node if node.op_type != "Constant" or node.output[0] in read]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
