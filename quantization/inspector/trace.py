"""Following tensors from a Reformat or a convolution to what makes them and what computes with them; naming both."""

from __future__ import annotations

from typing import Sequence

from quantization.inspector.classify import computes_in_float, emits_float, is_reformat, kind, precision, type_change
from quantization.inspector.layers import Layer
from quantization.inspector.names import common_module, module_of, onnx_nodes, operations, title
from quantization.inspector.topology import EngineGraph


def split_convolutions(graph: EngineGraph) -> list[tuple[Layer, Layer]]:
    """Int8 convolutions that emit float into a separate activation layer of the same block, with that layer."""
    return [
        (layer, after)
        for layer in graph.layers
        if kind(layer) == "conv" and precision(layer) == "Int8" and emits_float(layer)
        for after in graph.follow(layer, is_reformat)
        if kind(after) == "pointwise" and same_block(layer, after)
    ]


def same_block(conv: Layer, after: Layer) -> bool:
    """Is ``after`` the activation of ``conv``: of ``model.5.act`` or ``model.5`` for ``model.5.conv``?"""
    homes = {_parent(module_of(node)) for node in onnx_nodes(conv) if operations([node]) == ["Conv"]} - {""}
    return any(module in homes or _parent(module) in homes for module in map(module_of, onnx_nodes(after)))


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def readers(graph: EngineGraph, layer: Layer) -> list[Layer]:
    """The computing layers behind a Reformat, through pools, resizes and shuffles, which keep the scale."""
    return graph.follow(layer, keeps_scale)


def keeps_scale(layer: Layer) -> bool:
    return kind(layer) in ("reformat", "pooling", "resize", "shuffle", "no-op", "concat")


def concats(graph: EngineGraph, layer: Layer) -> list[str]:
    """Names of the Concats that a Reformat's output goes into before it is computed with; "" for one without a name."""
    names: list[str] = []
    waiting, seen = [layer], {layer.index}
    while waiting:
        current = waiting.pop(0)
        if any(edge.part for edge in graph.outgoing[current.index]) or kind(current) == "concat":
            names.append(concat_name(graph, current))
        for after in graph.readers(current.index):
            if keeps_scale(after) and after.index not in seen:
                seen.add(after.index)
                waiting.append(after)
    return sorted(set(names))


def concat_name(graph: EngineGraph, layer: Layer) -> str:
    """The ONNX name of the Concat whose output ``layer`` writes, from any of its writers; empty if none has it."""
    output = layer.outputs[0].name if layer.outputs else ""
    for after in graph.readers(layer.index):
        for edge in graph.incoming[after.index]:
            if edge.tensor.name == output and edge.source is not None:
                for node in onnx_nodes(graph.layers[edge.source]):
                    if "concat" in node.rsplit("/", 1)[-1].lower():
                        return node
    found = next((node for node in onnx_nodes(layer) if "concat" in node.lower()), "")
    return found or next(
        (
            graph.concats[node]
            for after in graph.readers(layer.index)
            for node in onnx_nodes(after)
            if node in graph.concats
        ),
        "",
    )


def name_concats(first: EngineGraph, second: EngineGraph) -> None:
    """Let each of two engines use the other's names of Concats: an engine has none where Q kernels write all parts."""
    for graph, other in ((first, second), (second, first)):
        for edge in other.edges:
            if edge.part and edge.source is not None and edge.target is not None:
                name = concat_name(other, other.layers[edge.source])
                for node in onnx_nodes(other.layers[edge.target]):
                    if name and operations([node]) == ["Conv"]:
                        graph.concats[node] = name


def modules(layers: Sequence[Layer]) -> list[str]:
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


def counted(number: int, noun: str) -> str:
    """``1 bias``, ``2 biases``."""
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s")


def producer(graph: EngineGraph, layer: Layer) -> tuple[str, Layer | None, list[Layer]]:
    """(module that makes a Reformat's input, its convolution if split from its activation, the split-off layers)."""
    before = graph.follow(layer, is_reformat, back=True)
    split = [(conv, after) for conv, after in split_convolutions(graph) if after in before]
    makers = [conv for conv, _ in split] or before
    module = common_module([node for maker in makers for node in onnx_nodes(maker)])
    name = module or (title(makers[0]) if makers else network_input(graph, layer)) or "a constant"
    return name, split[0][0] if split else None, [after for _, after in split]


def float_convolution(graph: EngineGraph, layer: Layer) -> Layer | None:
    """The convolution in float that makes a Reformat's input, itself or through an activation of its own."""
    for maker in graph.follow(layer, _passes, back=True):
        for conv in [maker] + (graph.follow(maker, _passes, back=True) if kind(maker) == "pointwise" else []):
            if kind(conv) == "conv" and computes_in_float(conv) and (conv is maker or same_block(conv, maker)):
                return conv
    return None


def is_strided(conv: Layer) -> bool:
    """Is the output of a convolution smaller than its input in height or width?"""
    if not conv.inputs or not conv.outputs:
        return False
    return any(0 < after < before for before, after in zip(conv.inputs[0].shape[2:], conv.outputs[0].shape[2:]))


def conversions(graph: EngineGraph, layers: Sequence[Layer], back: bool = False) -> list[Layer]:
    """The Reformats that exist for ``layers`` alone and convert what they give (or, with ``back``, what they read).

    Copies into a Concat, which convert nothing, do not count, nor does a Reformat that other layers share.
    """
    step, other = (graph.writers, graph.readers) if back else (graph.readers, graph.writers)
    inside: dict[int, Layer] = {layer.index: layer for layer in layers}
    waiting = [near for layer in layers for near in step(layer.index)]
    found: list[Layer] = []
    while waiting:
        layer = waiting.pop(0)
        shared = any(far.index not in inside for far in other(layer.index))
        if layer.index in inside or layer.index in graph.constant or shared or not _passes(layer):
            continue
        inside[layer.index] = layer
        if is_reformat(layer) and (layer.origin != "CONCAT" or type_change(layer)):
            found.append(layer)
        waiting += step(layer.index)
    return found


def _passes(layer: Layer) -> bool:
    return is_reformat(layer) or kind(layer) == "no-op"


def stem_conversions(graph: EngineGraph) -> list[tuple[Layer, list[Layer]]]:
    """Int8 convolutions that read the image padded to 32 channels, with the Reformats that quantize and pad it."""
    found = []
    for layer in graph.layers:
        if kind(layer) != "conv" or precision(layer) != "Int8" or not network_input(graph, layer):
            continue
        image = layer.inputs[0]
        if image.layout.startswith("NC/32") and len(image.shape) > 1 and image.shape[1] < 32:
            found.append((layer, conversions(graph, [layer], back=True)))
    return found


def network_input(graph: EngineGraph, layer: Layer) -> str:
    """The network input that ``layer`` reads, directly or through Reformats; empty if none."""
    waiting, seen = [layer], {layer.index}
    while waiting:
        near = waiting.pop(0)
        for edge in graph.incoming[near.index]:
            if edge.source is None:
                return edge.tensor.name
        before = [each for each in graph.writers(near.index) if _passes(each) and each.index not in seen]
        seen |= {each.index for each in before}
        waiting += before
    return ""


def network_binding(graph: EngineGraph, layer: Layer) -> str:
    """The network input that a layer reads itself, or the output that it writes; empty if neither."""
    edges = [edge for edge in graph.incoming[layer.index] if edge.source is None]
    edges += [edge for edge in graph.outgoing[layer.index] if edge.target is None]
    return edges[0].tensor.name if edges else ""
