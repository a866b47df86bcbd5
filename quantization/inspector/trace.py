"""Following tensors from a Reformat or a convolution to what makes them and what computes with them; naming both."""

from __future__ import annotations

from typing import Sequence

from quantization.inspector.names import common_module, module_of, operations, same_block
from quantization.inspector.records import Layer
from quantization.inspector.topology import EngineGraph, is_reformat, keeps_scale, passes_on


def readers(graph: EngineGraph, layer: Layer) -> list[Layer]:
    """The computing layers behind a Reformat, through pools, resizes and shuffles, which keep the scale."""
    return graph.follow(layer, keeps_scale)


def concats(graph: EngineGraph, layer: Layer) -> list[str]:
    """Names of the Concats that a Reformat's output goes into before it is computed with; "" for one without a name."""
    names: list[str] = []
    waiting, seen = [layer], {layer.index}
    while waiting:
        current = waiting.pop(0)
        if any(edge.part for edge in graph.outgoing[current.index]) or current.kind == "concat":
            names.append(concat_name(graph, current))
        for after in graph.readers(current.index):
            if after.keeps_scale and after.index not in seen:
                seen.add(after.index)
                waiting.append(after)
    return sorted(set(names))


def concat_name(graph: EngineGraph, layer: Layer) -> str:
    """The ONNX name of the Concat whose output ``layer`` writes, from any of its writers; empty if none has it."""
    output = layer.outputs[0].name if layer.outputs else ""
    for after in graph.readers(layer.index):
        for edge in graph.incoming[after.index]:
            if edge.tensor.name == output and edge.source is not None:
                for node in graph.layers[edge.source].nodes:
                    if "concat" in node.rsplit("/", 1)[-1].lower():
                        return node
    found = next((node for node in layer.nodes if "concat" in node.lower()), "")
    return found or next(
        (graph.concats[node] for after in graph.readers(layer.index) for node in after.nodes if node in graph.concats),
        "",
    )


def concats_by_reader(graph: EngineGraph) -> dict[str, str]:
    """Names of Concats by the convolutions (ONNX nodes) that read them.

    An engine has no name for a Concat whose parts Q kernels write; another engine of the network may have it.
    """
    found: dict[str, str] = {}
    for edge in graph.edges:
        if edge.part and edge.source is not None and edge.target is not None:
            name = concat_name(graph, graph.layers[edge.source])
            if name:
                found.update((node, name) for node in graph.layers[edge.target].nodes if operations([node]) == ["Conv"])
    return found


def modules(layers: Sequence[Layer]) -> list[str]:
    """Upstream modules of layers: of the convolution where there is one, as that is where the quantizer sits."""
    names = []
    for layer in layers:
        core = [node for node in layer.nodes if operations([node]) == ["Conv"]] or list(layer.nodes)
        module = module_of(core[0]) if core else ""
        detail = "" if operations(core[:1]) == ["Conv"] else f" ({' + '.join(operations(core))})"
        names.append(module + detail if module else layer.title)
    return sorted(set(names), key=names.index)


def producer(graph: EngineGraph, layer: Layer) -> tuple[str, Layer | None, list[Layer]]:
    """(module that makes a Reformat's input, its convolution if split from its activation, the split-off layers)."""
    before = graph.follow(layer, is_reformat, back=True)
    split = [(conv, after) for conv, after in graph.splits if after in before]
    makers = [conv for conv, _ in split] or before
    module = common_module([node for maker in makers for node in maker.nodes])
    name = module or (makers[0].title if makers else network_input(graph, layer)) or "a constant"
    return name, split[0][0] if split else None, [after for _, after in split]


def float_convolution(graph: EngineGraph, layer: Layer) -> Layer | None:
    """The convolution in float that makes a Reformat's input, itself or through an activation of its own."""
    for maker in graph.follow(layer, passes_on, back=True):
        for conv in [maker] + (graph.follow(maker, passes_on, back=True) if maker.kind == "pointwise" else []):
            if (
                conv.kind == "conv"
                and conv.computes_in_float
                and (conv is maker or same_block(conv.nodes, maker.nodes))
            ):
                return conv
    return None


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
        if layer.index in inside or layer.index in graph.constant or shared or not layer.passes_on:
            continue
        inside[layer.index] = layer
        if layer.is_reformat and (layer.origin != "CONCAT" or layer.type_change):
            found.append(layer)
        waiting += step(layer.index)
    return found


def stem_conversions(graph: EngineGraph) -> list[tuple[Layer, list[Layer]]]:
    """Int8 convolutions that read the image padded to 32 channels, with the Reformats that quantize and pad it."""
    found = []
    for layer in graph.layers:
        if layer.kind != "conv" or layer.precision != "Int8" or not network_input(graph, layer):
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
        before = [each for each in graph.writers(near.index) if each.passes_on and each.index not in seen]
        seen |= {each.index for each in before}
        waiting += before
    return ""


def network_binding(graph: EngineGraph, layer: Layer) -> str:
    """The network input that a layer reads itself, or the output that it writes; empty if neither."""
    edges = [edge for edge in graph.incoming[layer.index] if edge.source is None]
    edges += [edge for edge in graph.outgoing[layer.index] if edge.target is None]
    return edges[0].tensor.name if edges else ""
