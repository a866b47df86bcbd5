"""Following tensors from a Reformat to what makes them and to what computes with them, and naming both."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from quantization.engine.classify import emits_float, is_reformat, kind, precision
from quantization.engine.names import common_module, module_of, onnx_nodes, operations, title
from quantization.engine.records import Layer
from quantization.engine.topology import EngineGraph


def split_convolutions(graph: EngineGraph) -> List[Tuple[Layer, Layer]]:
    """Int8 convolutions that emit float into a separate activation layer of the same module, with that layer."""
    found = []
    for layer in graph.layers:
        if kind(layer) != "conv" or precision(layer) != "Int8" or not emits_float(layer):
            continue
        scope = common_module(onnx_nodes(layer))
        for after in graph.follow(layer, is_reformat):
            inside = any((common_module([node]) + ".").startswith(scope + ".") for node in onnx_nodes(after))
            if kind(after) == "pointwise" and scope and inside:
                found.append((layer, after))
    return found


def readers(graph: EngineGraph, layer: Layer) -> List[Layer]:
    """The computing layers behind a Reformat, through pools, resizes and shuffles, which keep the scale."""
    return graph.follow(layer, keeps_scale)


def keeps_scale(layer: Layer) -> bool:
    return kind(layer) in ("reformat", "pooling", "resize", "shuffle", "no-op", "concat")


def concats(graph: EngineGraph, layer: Layer) -> List[str]:
    """Names of the Concats that a Reformat's output goes into before it is computed with."""
    names: List[str] = []
    waiting, seen = [layer], {layer.index}
    while waiting:
        current = waiting.pop(0)
        if any(edge.part for edge in graph.outgoing[current.index]) or kind(current) == "concat":
            names.append(concat_name(graph, current))
        for after in graph.readers(current.index):
            if keeps_scale(after) and after.index not in seen:
                seen.add(after.index)
                waiting.append(after)
    return sorted(set(names) - {""})


def concat_name(graph: EngineGraph, layer: Layer) -> str:
    """The ONNX name of the Concat whose output ``layer`` writes, from any of its writers; else the tensor's name."""
    output = layer.outputs[0].name if layer.outputs else ""
    for after in graph.readers(layer.index):
        for edge in graph.incoming[after.index]:
            if edge.tensor.name == output and edge.source is not None:
                for node in onnx_nodes(graph.layers[edge.source]):
                    if "concat" in node.rsplit("/", 1)[-1].lower():
                        return node
    return next((node for node in onnx_nodes(layer) if "concat" in node.lower()), output.split("::")[0])


def modules(layers: Sequence[Layer]) -> List[str]:
    """Upstream modules of layers: of the convolution where there is one, as that is where the quantizer sits."""
    names = []
    for layer in layers:
        nodes = onnx_nodes(layer)
        core = [node for node in nodes if operations([node]) == ["Conv"]] or list(nodes)
        module = module_of(core[0]) if core else ""
        detail = "" if operations(core[:1]) == ["Conv"] else f" ({' + '.join(operations(core))})"
        names.append(module + detail if module else title(layer))
    return sorted(set(names), key=names.index)


def words(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nothing"


def producer(graph: EngineGraph, layer: Layer) -> Tuple[str, Optional[Layer], List[Layer]]:
    """(module that makes a Reformat's input, its convolution if split from its activation, the split-off layers)."""
    before = graph.follow(layer, is_reformat, back=True)
    split = [(conv, after) for conv, after in split_convolutions(graph) if after in before]
    makers = [conv for conv, _ in split] or before
    module = common_module([node for maker in makers for node in onnx_nodes(maker)])
    name = module or (title(makers[0]) if makers else "nothing")
    return name, split[0][0] if split else None, [after for _, after in split]
