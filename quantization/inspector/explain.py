"""The words of a finding: what happens at one place, why, and what to change there."""

from __future__ import annotations

from quantization.inspector.causes import Finding, make_finding
from quantization.inspector.classify import computes_in_float, is_reformat, kind, precision, type_change
from quantization.inspector.layers import Layer, Tensor
from quantization.inspector.names import common_module, onnx_nodes, operations, title
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import (
    concat_name,
    concats,
    conversions,
    counted,
    float_convolution,
    is_strided,
    modules,
    network_input,
    producer,
    readers,
    split_convolutions,
    stem_conversions,
    words,
)


def stem(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """The image on its way to an INT8 convolution that reads 32 channels."""
    layers = sorted(layers, key=lambda layer: layer.index)
    conv = next(conv for conv, before in stem_conversions(graph) if layers[0] in before)
    name, image = common_module(onnx_nodes(conv)), conv.inputs[0]
    steps = [_format(layers[0].inputs[0]), *(_format(layer.outputs[0]) for layer in layers)]
    verb = "is" if image.shape[1] == 1 else "are"
    text = (
        f"{network_input(graph, conv)}: its {counted(image.shape[1], 'channel')} {verb} padded to 32 for the INT8 "
        f"kernel of {name}: {' to '.join(steps)}"
    )
    if is_strided(conv):
        advice = (
            f"leave {name} in float (quant-tools: --stem float): FP16 kernels read 4 channels, and its output, "
            "which is quantized instead, is smaller than the padded image"
        )
    else:
        advice = "without a stride the output is larger than the padded image: to quantize that would cost more"
    return make_finding(("stem", name), text, advice, layers, avoidable=is_strided(conv))


def quantize(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Q kernels on one tensor."""
    name, conv, split = producer(graph, layers[0])
    targets = [modules(readers(graph, layer)) for layer in layers]
    every = words(list(dict.fromkeys(target for group in targets for target in group)))
    through = [concats(graph, layer) for layer in layers]
    sources = graph.writers(layers[0].index)
    floats = [
        after
        for before in sources
        for after in graph.follow(before, lambda layer: is_reformat(layer) and layer not in layers)
        if not is_reformat(after) and after not in split
    ]
    in_float = None if conv else float_convolution(graph, layers[0])
    text = f"{name}: "
    text += f"computes in {in_float.inputs[0].datatype}, so " if in_float else ""
    text += f"its {layers[0].inputs[0].datatype} output is quantized "
    if len(layers) > 1:
        text += f"{'twice' if len(layers) == 2 else f'{len(layers)} times'}: "
    text += "for "
    text += "; for ".join(words(target) + _through(names, target) for target, names in zip(targets, through))
    text += f", and read as float by {words(modules(floats))}" if floats else ""
    text += "; convolution and activation are not fused" if conv else ""
    if len(layers) > 1:
        resizes = [after for layer in layers for after in graph.follow(layer, is_reformat) if kind(after) == "resize"]
        advice = [f"quantize the input of {words(modules(resizes))} with it too"] if resizes else []
        advice += [f"one Reformat stays while {words(modules(floats))} reads float"] if floats else []
        return make_finding(("scales", name), text, "; ".join(advice), layers + split)
    if floats:
        cause, advice, avoidable = _float_readers(floats)
        return make_finding(
            (cause, name), text, advice, layers + split + _conversions_for(graph, sources, floats), avoidable
        )
    if in_float and precision(in_float) == "FP32" and any(precision(layer) == "FP16" for layer in graph.layers):
        silu = "SiLU" in operations(onnx_nodes(in_float))
        advice = (
            "export it again with quant-tools, which writes that SiLU with tanh: the convolution then runs in FP16"
            if silu
            else f"quantize {name} as well, if accuracy allows (quant-tools, for a stem: --stem int8)"
        )
        return make_finding(("fp32", name), text, advice, [in_float, *layers])
    if in_float:
        stays = is_strided(in_float) and bool(network_input(graph, in_float))
        advice = (
            "it reads the image with a stride, which is faster in float"
            if stays
            else f"quantize {name} as well, if accuracy allows"
        )
        return make_finding(("float producer", name), text, advice, layers, avoidable=not stays)
    advice = f"give {name} Int8 inputs, or check that nothing stands between it and the quantizer of {every}"
    return make_finding(("quantize", name), text, advice, layers + split)


def _through(names: list[str], readers_of: list[str]) -> str:
    """`` through Concat /model.10/Concat``; a Concat without a name is told by its readers."""
    unnamed = f"the Concat before {'it' if len(readers_of) == 1 else 'them'}"
    return f" through {words([f'Concat {name}' if name else unnamed for name in names])}" if names else ""


def _float_readers(floats: list[Layer]) -> tuple[str, str, bool]:
    """(cause, advice beyond the cause's own, avoidable) where ``floats`` read in float what others read in INT8."""
    sums = [layer for layer in floats if _is_sum(layer)]
    names = words(modules(floats))
    if sums:
        return "sum", _both_operands(sums), True
    if all(kind(layer) == "conv" for layer in floats):
        return "float reader", "", True
    verb = "is" if len(floats) == 1 else "are"
    return "float layer", f"stays while {names} {verb} float; quantize that if accuracy allows", False


def _conversions_for(graph: EngineGraph, sources: list[Layer], floats: list[Layer]) -> list[Layer]:
    """Reformats between ``sources`` and convolutions that read them in float: they go with the float reading."""
    convolutions = [layer for layer in floats if kind(layer) == "conv"]
    behind = {layer.index for source in sources for layer in graph.readers(source.index)}
    return [layer for layer in conversions(graph, convolutions, back=True) if layer.index in behind]


def split(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """An activation that is not fused into its INT8 convolution, where no Q kernel is the reason."""
    after = next(layer for layer in layers if not is_reformat(layer))
    conv = next(conv for conv, other in split_convolutions(graph) if other is after)
    name = common_module(onnx_nodes(conv))
    behind = readers(graph, after)
    text = (
        f"{name}: the Int8 convolution emits {conv.outputs[0].datatype} and its activation is a layer of its own, "
        f"read by {words(modules(behind))}"
    )
    if _is_sum(after):
        text += "; it is quantized in between" if len(layers) > 1 else ""
        return make_finding(("sum", name), text, _both_operands([after]), layers)
    if behind and all(map(computes_in_float, behind)):
        cause, advice, avoidable = _float_readers(behind)
        return make_finding((cause, name), text, advice, layers + _conversions_for(graph, [after], behind), avoidable)
    return make_finding(("split", name), text, f"quantize the output for {words(modules(behind))}", layers)


def rescale(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Reformats from INT8 to INT8 in another scale."""
    name, _, _ = producer(graph, layers[0])
    every = words(modules([reader for layer in layers for reader in readers(graph, layer)]))
    through = sorted({concat for layer in layers for concat in concats(graph, layer)})
    return make_finding(
        ("rescale", name),
        f"{name}: its Int8 output is scaled again for {every}"
        + _through(through, modules([reader for layer in layers for reader in readers(graph, layer)])),
        f"the quantizers are those of {every} and of the other readers of {name}",
        layers,
    )


def dequantize(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Reformats from INT8 to float."""
    name, _, _ = producer(graph, layers[0])
    after = [reader for layer in layers for reader in readers(graph, layer)]
    names = words(modules(after))
    text = f"{name}: its Int8 output is turned into {layers[0].outputs[0].datatype} for {names}"
    sums = list(filter(_is_sum, after))
    if sums:
        text += ", the other operand of which is not quantized"
        return make_finding(("sum", name), text, _both_operands(sums), layers)
    if after and all(kind(layer) == "conv" and computes_in_float(layer) for layer in after):
        text += f", which compute{'s' * (len(after) == 1)} in float from an Int8 tensor"
        advice = f"stays while {names} computes in float; quantize its weights too if accuracy allows"
        return make_finding(("float weights", name), text, advice, layers, avoidable=False)
    return make_finding(
        ("dequantize", name), text, f"quantize every input of {names}, or leave its producer's output float", layers
    )


def _is_sum(layer: Layer) -> bool:
    return "Add" in operations(onnx_nodes(layer))


def _both_operands(sums: list[Layer]) -> str:
    names = [next(node for node in onnx_nodes(layer) if operations([node]) == ["Add"]) for layer in sums]
    return f"quantize both operands of {words(names)}"


def concat(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Copies into the output of one Concat; a branch in another scale is ``rescale`` or ``quantize``, not a copy."""
    name = concat_name(graph, layers[0]) or (layers[0].outputs[0].name if layers[0].outputs else "")
    branches = max(
        (
            len({edge.source for edge in graph.incoming[after.index] if edge.tensor.name == tensor.name})
            for layer in layers
            for tensor in layer.outputs
            for after in graph.readers(layer.index)
        ),
        default=0,
    )
    before = [graph.writers(layer.index) for layer in layers]
    resized = [any(kind(each) == "resize" for each in writers) for writers in before]
    shared = [any(len(graph.readers(each.index)) > 1 for each in writers) for writers in before]
    changes = sorted({" to ".join(change) for change in map(type_change, layers) if change is not None})
    of = f"{len(layers)} of " if branches >= len(layers) else ""
    text = f"Concat {name}: {of}{counted(max(branches, len(layers)), 'branch')} copied into its output, "
    text += ", ".join(changes) if changes else "type unchanged"
    text += f"; {sum(shared)} with further readers" if any(shared) else ""
    text += f"; {sum(resized)} from a Resize" if any(resized) else ""
    return make_finding(("concat", name), text, "", layers, avoidable=False)


def boundary(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Reformats at a network input or output."""
    given = next((edge for edge in graph.incoming[layers[0].index] if edge.source is None), None)
    taken = [edge for edge in graph.outgoing[layers[0].index] if edge.target is None]
    name, what = (given.tensor.name, "input") if given else (taken[0].tensor.name, "output")
    steps = [
        f"{_format(layer.inputs[0])} to {_format(layer.outputs[0])}"
        for layer in layers
        if layer.inputs and layer.outputs
    ]
    text = f"{name}, an {what} of the network, is converted: {words(sorted(set(steps)))}"
    return make_finding(("boundary", name), text, "", layers, avoidable=False)


def layout(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """A Reformat between two layouts of one type, or of a type that no other cause covers."""
    name, _, _ = producer(graph, layers[0])
    after = modules(readers(graph, layers[0]))
    before, behind = (str(tensors[0]) if tensors else "?" for tensors in (layers[0].inputs, layers[0].outputs))
    text = f"{name} gives {before}, {words(after)} {'takes' if len(after) == 1 else 'take'} {behind}"
    return make_finding(("layout", f"{name} to {words(after)}"), text, "", layers, avoidable=False)


def identity(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Biases that an exporter merged."""
    verb = "is" if len(layers) == 1 else "are"
    text = f"{counted(len(layers), 'bias')} {verb} copied at every inference"
    return make_finding(("identity", ""), text, "", layers)


def constant(graph: EngineGraph, layers: list[Layer]) -> Finding:
    """Another constant that is converted."""
    before, after = graph.writers(layers[0].index), words(modules(readers(graph, layers[0])))
    name = title(before[0]) if before else layers[0].name
    text = (
        f"{name}, a constant, is converted from {_format(layers[0].inputs[0])} to {_format(layers[0].outputs[0])} "
        f"for {after} at every inference"
    )
    return make_finding(("constants", f"{name} to {after}"), text, "", layers, avoidable=False)


def _format(tensor: Tensor) -> str:
    return f"{tensor.datatype} {tensor.layout}".strip()
