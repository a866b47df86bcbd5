"""Which Q/DQ or Concat costs which Reformat in an engine, and what to change.

| what the engine shows                       | cause                                  | change                        |
|---------------------------------------------|----------------------------------------|-------------------------------|
| one tensor, several float-to-Int8 Reformats | quantizers of its readers differ       | one quantizer for all readers |
| one float-to-Int8 Reformat, a float reader  | the tensor is needed in both types     | quantize the reader, or none  |
| Int8-to-float Reformat                      | the reader computes in float           | quantize its other operands   |
| Int8-to-Int8 Reformat of origin QDQ         | the two sides differ in scale          | one quantizer for both        |
| copies of origin CONCAT                     | a branch is not written in place       | equal scales, or none         |
| Int8 convolution and activation not fused   | the output leaves as float             | quantize what reads it        |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Sequence, Set, Tuple

from quantization.engine.classify import (dequantizes, emits_float, is_reformat, kind, quantizes, rescales,
                                          type_change)
from quantization.engine.names import common_module, onnx_nodes, operations
from quantization.engine.records import Layer
from quantization.engine.topology import EngineGraph
from quantization.engine.trace import concat_name, concats, modules, producer, readers, split_convolutions, words

RULE = "(apply_custom_rules_to_quantizer does this for the groups that it finds)"


@dataclass(frozen=True)
class Finding:
    """One cause of extra work.

    Attributes:
        key: (sort, place); equal for the same finding in another engine.
        text: what happens and why.
        advice: what to change.
        layers: indices of the layers that it costs.
        avoidable: False for what every engine of this network has.
        cost_ms: time of ``layers``; 0 without a profile.
    """

    key: Tuple[str, str]
    text: str
    advice: str
    layers: Tuple[int, ...]
    avoidable: bool
    cost_ms: float


def find_problems(graph: EngineGraph) -> List[Finding]:
    """All findings; avoidable ones first, then the most costly.

    Every Reformat is in exactly one of them.
    """
    claimed: Set[int] = set()
    findings: List[Finding] = []
    for explain, group in _groups(graph):
        layers = [layer for layer in group if layer.index not in claimed]
        if layers:
            finding = explain(graph, layers)
            claimed |= set(finding.layers)
            findings.append(finding)
    for conv, after in split_convolutions(graph):
        # a sum with a dequantized operand is split for that reason, which the operand's finding gives
        if after.index not in claimed and not any(dequantizes(layer) for layer in graph.writers(after.index)):
            findings.append(_split(graph, conv, after))
    return sorted(findings, key=by_cost)


def by_cost(finding: Finding) -> Tuple[bool, float, int, Tuple[str, str]]:
    """Sorting key: avoidable ones first, then the most costly."""
    return not finding.avoidable, -finding.cost_ms, -len(finding.layers), finding.key


def _groups(graph: EngineGraph) -> Iterable[Tuple[Callable[[EngineGraph, List[Layer]], Finding], List[Layer]]]:
    """Reformats by what explains them and by the place that they share."""
    groups: Dict[Tuple[int, str], Tuple[Callable[[EngineGraph, List[Layer]], Finding], List[Layer]]] = {}
    constants: List[Layer] = []
    for layer in graph.layers:
        if not is_reformat(layer):
            continue
        source = layer.inputs[0].name if layer.inputs else ""
        if layer.index in graph.constant:
            constants.append(layer)
            continue
        binding = _binding(graph, layer)
        if binding:
            order, explain, place = 1, _boundary, binding
        elif quantizes(layer):
            order, explain, place = 2, _quantize, source
        elif rescales(layer):
            order, explain, place = 3, _rescale, source
        elif dequantizes(layer):
            order, explain, place = 4, _dequantize, source
        elif layer.origin == "CONCAT":
            order, explain, place = 5, _concat, concat_name(graph, layer)
        else:
            order, explain, place = 6, _layout, layer.outputs[0].name if layer.outputs else layer.name
        groups.setdefault((order, place), (explain, []))[1].append(layer)
    if constants:
        yield _constants, constants
    for key in sorted(groups, key=lambda key: key[0]):
        yield groups[key]


def make_finding(key: Tuple[str, str], text: str, advice: str, layers: Sequence[Layer],
                 avoidable: bool = True) -> Finding:
    """A finding that costs the time of ``layers``."""
    return Finding(key, text, advice, tuple(sorted({layer.index for layer in layers})), avoidable,
                   sum(layer.time_ms or 0.0 for layer in layers))


def _quantize(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name, conv, split = producer(graph, layers[0])
    targets = [modules(readers(graph, layer)) for layer in layers]
    through = [concats(graph, layer) for layer in layers]
    floats = modules([after for before in graph.writers(layers[0].index)
                      for after in graph.follow(before, lambda layer: is_reformat(layer) and not quantizes(layer))
                      if not is_reformat(after) and after not in split])
    text = f"{name}: "
    text += "convolution and activation are not fused and the " if conv else "the "
    text += f"output leaves as {layers[0].inputs[0].datatype}, because it is quantized "
    if len(layers) > 1:
        text += f"{'twice' if len(layers) == 2 else f'{len(layers)} times'}: "
    text += "for "
    text += "; for ".join(words(target) + (f" through Concat {words(names)}" if names else "")
                          for target, names in zip(targets, through))
    text += f"; and read as float by {words(floats)}" if floats else ""
    every = words(list(dict.fromkeys(target for group in targets for target in group)))
    joined = words(list(dict.fromkeys(concat for names in through for concat in names)))
    if len(layers) > 1:
        where = f"the branches into Concat {joined} carry different scales" if any(through) else "the scales differ"
        advice = f"{where}: give {every} one quantizer {RULE}"
        resizes = [after for layer in layers for after in graph.follow(layer, is_reformat) if kind(after) == "resize"]
        advice += f", and quantize the input of {words(modules(resizes))} with it too" if resizes else ""
        advice += f"; one Reformat stays while {words(floats)} is float" if floats else ""
    elif floats:
        advice = f"stays while {words(floats)} is float; quantize that if accuracy allows"
    else:
        advice = f"give {name} Int8 inputs, or check that nothing stands between it and the quantizer of {every}"
    return make_finding(("quantize", name), text, advice, layers + split, avoidable=len(layers) > 1 or not floats)


def _rescale(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name, _, _ = producer(graph, layers[0])
    every = words(modules([reader for layer in layers for reader in readers(graph, layer)]))
    through = sorted({concat for layer in layers for concat in concats(graph, layer)})
    return make_finding(("rescale", name), f"{name}: its Int8 output is scaled again for {every}"
                        + (f" through Concat {words(through)}" if through else ""),
                    f"give {every} and the other readers of {name} one quantizer {RULE}", layers)


def _dequantize(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name, _, _ = producer(graph, layers[0])
    after = [reader for layer in layers for reader in readers(graph, layer)]
    text = f"{name}: its Int8 output is turned into {layers[0].outputs[0].datatype} for {words(modules(after))}"
    sums = [layer for layer in after if "Add" in operations(onnx_nodes(layer))]
    if sums:
        text += ", a sum whose other operand is not quantized: the convolution before the sum emits float as well"
        advice = f"quantize both operands of {words([_sum_name(layer) for layer in sums])}: then it runs in Int8"
    else:
        advice = f"quantize every input of {words(modules(after))}, or leave its producer's output float"
    return make_finding(("dequantize", name), text, advice, layers)


def _sum_name(layer: Layer) -> str:
    return next(node for node in onnx_nodes(layer) if operations([node]) == ["Add"])


def _concat(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name = concat_name(graph, layers[0])
    branches = max((len({edge.source for edge in graph.incoming[after.index] if edge.tensor.name == tensor.name})
                    for layer in layers for tensor in layer.outputs for after in graph.readers(layer.index)), default=0)
    shared = [layer for layer in layers if any(
        len(graph.readers(before.index)) > 1 for before in graph.writers(layer.index))]
    changes = sorted({"to".join(f" {part} " for part in change).strip()
                      for change in map(type_change, layers) if change is not None})
    of = f" of {branches}" if branches >= len(layers) else ""
    text = f"Concat {name}: {len(layers)}{of} branches copied into its output, "
    text += ", ".join(changes) if changes else "type unchanged"
    text += f"; {len(shared)} of them with further readers" if shared else ""
    quantized = any(tensor.datatype == "Int8" for layer in layers for tensor in layer.outputs)
    if quantized:
        advice = ("one scale on all branches lets TensorRT write them in place; a branch with further readers is "
                  "copied in FP16 engines too")
    else:
        advice = "a Concat in float: nothing to do with Q/DQ"
    return make_finding(("concat", name), text, advice, layers, avoidable=quantized and len(shared) < len(layers))


def _binding(graph: EngineGraph, layer: Layer) -> str:
    """The network input that a Reformat reads, or the output that it writes; empty if neither."""
    edges = [edge for edge in graph.incoming[layer.index] if edge.source is None]
    edges += [edge for edge in graph.outgoing[layer.index] if edge.target is None]
    return edges[0].tensor.name if edges else ""


def _boundary(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name = _binding(graph, layers[0])
    return make_finding(("boundary", name), f"{name}: the network's own input or output is converted",
                    "stays, unless the application hands over or takes the engine's own type and format",
                    layers, avoidable=False)


def _layout(graph: EngineGraph, layers: List[Layer]) -> Finding:
    name, _, _ = producer(graph, layers[0])
    after = words(modules(readers(graph, layers[0])))
    before, behind = (str(tensors[0]) if tensors else "?" for tensors in (layers[0].inputs, layers[0].outputs))
    return make_finding(("layout", f"{name} to {after}"), f"{name} gives {before}, {after} takes {behind}",
                    "TensorRT's choice of kernels; it goes if both sides run in one precision", layers, avoidable=False)


def _constants(graph: EngineGraph, layers: List[Layer]) -> Finding:
    return make_finding(("constants", ""), f"{len(layers)} copies of constants (biases) run at every inference",
                    "the export merged equal biases through Identity nodes (random weights have many equal ones): fold "
                    "Identity nodes before the build; do not compare such an engine with one that lacks them", layers)


def _split(graph: EngineGraph, conv: Layer, after: Layer) -> Finding:
    name = common_module(onnx_nodes(conv))
    behind = readers(graph, after)
    if "Add" in operations(onnx_nodes(after)):
        advice = f"quantize both operands of {_sum_name(after)}: then the convolution fuses with its activation"
    elif all(emits_float(layer) for layer in behind):
        advice = f"stays while {words(modules(behind))} is float"
    else:
        advice = f"quantize the output for {words(modules(behind))}"
    text = (f"{name}: the Int8 convolution emits {conv.outputs[0].datatype} and its activation is a layer of its own, "
            f"read by {words(modules(behind))}")
    return make_finding(("split", name), text, advice, [after], avoidable=not advice.startswith("stays"))
