"""The words of a finding about Q, DQ and what they keep from fusing: what happens, why, and what to change there."""

from __future__ import annotations

from quantization.inspector.causes import FLOAT_STEM, EngineFinding, Evidence, make_finding
from quantization.inspector.names import counted, operations, words
from quantization.inspector.records import Layer
from quantization.inspector.topology import EngineGraph, is_reformat
from quantization.inspector.trace import (
    concats,
    conversions,
    float_convolution,
    modules,
    network_input,
    producer,
    readers,
)


def explain_stem(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """The image on its way to an INT8 convolution that reads 32 channels."""
    layers, conv = evidence.sorted_layers(), evidence.convolution()
    name, image = conv.module, conv.inputs[0]
    steps = [layers[0].inputs[0].format, *(layer.outputs[0].format for layer in layers)]
    verb = "is" if image.shape[1] == 1 else "are"
    text = (
        f"{network_input(graph, conv)}: its {counted(image.shape[1], 'channel')} {verb} padded to 32 for the INT8 "
        f"kernel of {name}: {' to '.join(steps)}"
    )
    if conv.is_strided:
        advice = (
            f"leave {name} in float ({FLOAT_STEM}): FP16 kernels read 4 channels, and its output, which is quantized instead, "
            "is smaller than the padded image"
        )
    else:
        advice = "without a stride the output is larger than the padded image: to quantize that would cost more"
    return make_finding(("stem", name), text, advice, layers, avoidable=conv.is_strided)


def explain_quantize(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Q kernels on one tensor."""
    layers = evidence.layers
    name, conv, split = producer(graph, layers[0])
    sources = graph.writers(layers[0].index)
    floats = [
        after
        for before in sources
        for after in graph.follow(before, lambda layer: layer.is_reformat and layer not in layers)
        if not after.is_reformat and after not in split
    ]
    in_float = None if conv else float_convolution(graph, layers[0])
    text = f"{name}: "
    text += f"computes in {in_float.inputs[0].datatype}, so " if in_float else ""
    text += f"its {layers[0].inputs[0].datatype} output is quantized {_quantized_for(graph, layers)}"
    text += f", and read as float by {words(modules(floats))}" if floats else ""
    text += "; convolution and activation are not fused" if conv else ""
    if len(layers) > 1:
        return make_finding(("scales", name), text, _one_scale(graph, layers, floats), layers + split)
    if floats:
        cause, advice, avoidable = _float_readers(graph, floats, shared=True)
        found = layers + split + _conversions_for(graph, sources, floats)
        return make_finding((cause, name), text, advice, found, avoidable)
    if in_float:
        return _after_float_convolution(graph, name, text, in_float, layers)
    after = words(modules(readers(graph, layers[0])))
    advice = f"give {name} Int8 inputs, or check that nothing stands between it and the quantizer of {after}"
    return make_finding(("quantize", name), text, advice, layers + split)


def _quantized_for(graph: EngineGraph, layers: list[Layer]) -> str:
    """``twice: for model.6.conv; for model.11.conv through Concat /model.10/Concat``."""
    text = "" if len(layers) == 1 else "twice: " if len(layers) == 2 else f"{len(layers)} times: "
    parts = []
    for layer in layers:
        targets = modules(readers(graph, layer))
        parts.append(words(targets) + _through(concats(graph, layer), targets))
    return f"{text}for {'; for '.join(parts)}"


def _through(names: list[str], readers_of: list[str]) -> str:
    """`` through Concat /model.10/Concat``; a Concat without a name is identified by its readers."""
    unnamed = f"the Concat before {'it' if len(readers_of) == 1 else 'them'}"
    return f" through {words([f'Concat {name}' if name else unnamed for name in names])}" if names else ""


def _one_scale(graph: EngineGraph, layers: list[Layer], floats: list[Layer]) -> str:
    """What to change beside the scales themselves."""
    resizes = [after for layer in layers for after in graph.follow(layer, is_reformat) if after.kind == "resize"]
    advice = [f"quantize the input of {words(modules(resizes))} with it too"] if resizes else []
    advice += [f"one Reformat stays while {words(modules(floats))} reads float"] if floats else []
    return "; ".join(advice)


def _after_float_convolution(
    graph: EngineGraph, name: str, text: str, conv: Layer, layers: list[Layer]
) -> EngineFinding:
    """A Q behind a float convolution, which runs in FP32 where a SiLU lies between."""
    if conv.precision == "FP32" and any(layer.precision == "FP16" for layer in graph.layers):
        advice = (
            "export it again with quant-tools, which writes that SiLU with tanh: the convolution then runs in FP16"
            if "SiLU" in conv.operations
            else f"quantize {name} as well, if accuracy allows (quant-tools, for a stem: --stem int8)"
        )
        return make_finding(("fp32", name), text, advice, [conv, *layers])
    if conv.is_strided and network_input(graph, conv):
        advice = "it reads the image with a stride, which may be faster in float (bench-engine.py --tune)"
        return make_finding(("float producer", name), text, advice, layers, avoidable=False)
    return make_finding(("float producer", name), text, f"quantize {name} as well, if accuracy allows", layers)


def _float_readers(graph: EngineGraph, floats: list[Layer], shared: bool) -> tuple[str, str, bool]:
    """(cause, advice beyond the cause's own, avoidable) where ``floats`` read in float what others read in INT8.

    Args:
        graph: the engine.
        floats: the layers that read in float.
        shared: whether INT8 layers read the tensor too.
    """
    sums = [layer for layer in floats if layer.is_sum]
    names = words(modules(floats))
    if sums:
        return "sum", _both_operands(sums), True
    if floats and all(layer in graph.detects for layer in floats):
        # of the tensors that INT8 layers read too, quant-tools quantizes the largest for its detect convolution as well
        if not (shared and graph.largest_detect in floats):
            option = "--head shared" if shared else "--head input"
            return "detect", f"{names} reads float for accuracy; {option} of quant-tools is faster", False
    if all(layer.kind == "conv" for layer in floats):
        return "float reader", "", True
    verb = "is" if len(floats) == 1 else "are"
    return "float layer", f"stays while {names} {verb} float; quantize that if accuracy allows", False


def _conversions_for(graph: EngineGraph, sources: list[Layer], floats: list[Layer]) -> list[Layer]:
    """Reformats between ``sources`` and convolutions that read them in float: they go with the float reading."""
    convolutions = [layer for layer in floats if layer.kind == "conv"]
    behind = {layer.index for source in sources for layer in graph.readers(source.index)}
    return [layer for layer in conversions(graph, convolutions, back=True) if layer.index in behind]


def explain_split(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """An activation that is not fused into its INT8 convolution, where no Q kernel is the reason."""
    layers, conv, after = evidence.layers, evidence.convolution(), evidence.split_off()
    name, behind = conv.module, readers(graph, after)
    text = (
        f"{name}: the Int8 convolution emits {conv.outputs[0].datatype} and its activation is a layer of its own, "
        f"read by {words(modules(behind))}"
    )
    if after.is_sum:
        text += "; it is quantized in between" if len(layers) > 1 else ""
        return make_finding(("sum", name), text, _both_operands([after]), layers)
    floats = [layer for layer in behind if layer.computes_in_float]
    cause, advice, avoidable = _float_readers(graph, floats, shared=floats != behind)
    if cause == "detect" or (behind and floats == behind):
        return make_finding((cause, name), text, advice, layers + _conversions_for(graph, [after], floats), avoidable)
    return make_finding(("split", name), text, f"quantize the output for {words(modules(behind))}", layers)


def explain_rescale(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Reformats from INT8 to INT8 in another scale."""
    layers = evidence.layers
    name, _, _ = producer(graph, layers[0])
    targets = modules([reader for layer in layers for reader in readers(graph, layer)])
    through = sorted({concat for layer in layers for concat in concats(graph, layer)})
    return make_finding(
        ("rescale", name),
        f"{name}: its Int8 output is scaled again for {words(targets)}{_through(through, targets)}",
        f"the quantizers are those of {words(targets)} and of the other readers of {name}",
        layers,
    )


def explain_dequantize(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Reformats from INT8 to float."""
    layers = evidence.layers
    name, _, _ = producer(graph, layers[0])
    after = [reader for layer in layers for reader in readers(graph, layer)]
    names = words(modules(after))
    text = f"{name}: its Int8 output is turned into {layers[0].outputs[0].datatype} for {names}"
    sums = [layer for layer in after if layer.is_sum]
    if sums:
        text += ", the other operand of which is not quantized"
        return make_finding(("sum", name), text, _both_operands(sums), layers)
    if after and all(layer.kind == "conv" and layer.computes_in_float for layer in after):
        text += f", which compute{'s' * (len(after) == 1)} in float from an Int8 tensor"
        advice = f"stays while {names} computes in float; quantize its weights too if accuracy allows"
        return make_finding(("float weights", name), text, advice, layers, avoidable=False)
    return make_finding(
        ("dequantize", name), text, f"quantize every input of {names}, or leave its producer's output float", layers
    )


def _both_operands(sums: list[Layer]) -> str:
    names = [next(node for node in layer.nodes if operations([node]) == ["Add"]) for layer in sums]
    return f"quantize both operands of {words(names)}"
