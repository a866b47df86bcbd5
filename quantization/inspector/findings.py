"""Which Q/DQ or Concat costs which Reformat in an engine, and what to change.

| cause          | what the engine shows                                | change                                       |
|----------------|------------------------------------------------------|----------------------------------------------|
| scales         | one tensor, several float-to-Int8 Reformats          | one quantizer for all readers                |
| rescale        | Int8-to-Int8 Reformat of origin QDQ                  | one quantizer for both sides                 |
| sum            | a float sum with a tensor that is Int8 for others,   | quantize both operands                       |
|                | or behind an Int8 convolution                        |                                              |
| float reader   | an Int8 convolution not fused with its activation,   | quantize the input of the float convolution; |
|                | because a float convolution reads its output         | its weights may stay float                   |
| float layer    | the same with another layer that reads float         | none, or quantize that layer                 |
| float weights  | Int8-to-float Reformat in front of convolutions      | none: it is the cheapest way to compute them |
|                | that compute in float                                | in float                                     |
| float producer | one float-to-Int8 Reformat behind a convolution that | quantize that convolution; a strided one     |
|                | computes in float                                    | that reads the image stays                   |
| fp32           | the same, but the convolution is in FP32 and the     | export its SiLU with tanh, as quant-tools    |
|                | engine has FP16 layers                               | does                                         |
| quantize       | any other float-to-Int8 Reformat                     | Int8 inputs for the producer                 |
| dequantize     | any other Int8-to-float Reformat                     | quantize every input of the reader           |
| split          | any other Int8 convolution not fused with its        | quantize what reads it                       |
|                | activation                                           |                                              |
| stem           | the image padded to 32 channels                      | leave a strided convolution in float         |
| concat         | copies of origin CONCAT: equal type and scale        | none                                         |
| boundary       | conversion of a network input or output              | none                                         |
| layout         | another layout of one type                           | none                                         |
| identity       | copies of biases                                     | fold Identity nodes                          |
| constants      | conversion of another constant                       | none                                         |

``compare`` adds ``precision``: a convolution that the other engine computes faster in another precision. ``causes``
says what each cause is, ``explain`` what happens at one place.
"""

from __future__ import annotations

from typing import Callable, Iterable, List

from quantization.inspector import explain
from quantization.inspector.causes import Finding
from quantization.inspector.classify import dequantizes, is_reformat, quantizes, rescales
from quantization.inspector.layers import Layer
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import concat_name, network_binding, split_convolutions, stem_conversions

Describe = Callable[[EngineGraph, List[Layer]], Finding]
# what comes first may claim layers of what comes later
_ORDER: tuple[Describe, ...] = (
    explain.stem,
    explain.identity,
    explain.constant,
    explain.split,
    explain.boundary,
    explain.quantize,
    explain.rescale,
    explain.dequantize,
    explain.concat,
    explain.layout,
)


def find_problems(graph: EngineGraph) -> list[Finding]:
    """All findings; avoidable ones first, then the most costly.

    Every Reformat is in exactly one of them.
    """
    claimed: set[int] = set()
    findings: list[Finding] = []
    for describe, group in _groups(graph):
        layers = [layer for layer in group if layer.index not in claimed]
        if layers:
            finding = describe(graph, layers)
            claimed |= set(finding.layers)
            findings.append(finding)
    return sorted(findings, key=by_cost)


def by_cost(finding: Finding) -> tuple[bool, float, int, tuple[str, str]]:
    """Sorting key: avoidable ones first, then the most costly."""
    return not finding.avoidable, -finding.cost_ms, -len(finding.layers), finding.key


def _groups(graph: EngineGraph) -> Iterable[tuple[Describe, list[Layer]]]:
    """Reformats and split-off activations by what describes them and by the place that they share."""
    groups: dict[tuple[int, str], list[Layer]] = {}

    def put(describe: Describe, place: str, layers: Iterable[Layer]) -> None:
        groups.setdefault((_ORDER.index(describe), place), []).extend(layers)

    for conv, layers in stem_conversions(graph):
        put(explain.stem, conv.name, layers)
    for conv, after in split_convolutions(graph):
        between = graph.writers(after.index)
        # a dequantized operand of its sum, or a quantizer behind it, is the cause and gets the finding
        if not any(map(dequantizes, between)) and not any(map(quantizes, graph.readers(after.index))):
            put(explain.split, conv.name, [after, *filter(quantizes, between)])
    for layer in filter(is_reformat, graph.layers):
        source, target = (tensors[0].name if tensors else layer.name for tensors in (layer.inputs, layer.outputs))
        binding = network_binding(graph, layer)
        if layer.index in graph.constant:
            identity = layer.name.startswith("Identity")
            put(explain.identity if identity else explain.constant, "" if identity else source, [layer])
        elif binding:
            put(explain.boundary, binding, [layer])
        elif quantizes(layer):
            put(explain.quantize, source, [layer])
        elif rescales(layer):
            put(explain.rescale, source, [layer])
        elif dequantizes(layer):
            put(explain.dequantize, source, [layer])
        elif layer.origin == "CONCAT":
            put(explain.concat, concat_name(graph, layer) or target, [layer])
        else:
            put(explain.layout, target, [layer])
    for order, place in sorted(groups):
        yield _ORDER[order], groups[order, place]
