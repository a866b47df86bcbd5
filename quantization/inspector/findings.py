"""Which Q/DQ or Concat costs which Reformat in an engine, and what to change.

| cause          | what the engine shows                                | change                                       |
|----------------|------------------------------------------------------|----------------------------------------------|
| scales         | one tensor, several float-to-Int8 Reformats          | one quantizer for all readers                |
| rescale        | Int8-to-Int8 Reformat of origin QDQ                  | one quantizer for both sides                 |
| sum            | a float sum with a tensor that is Int8 for others,   | quantize both operands                       |
|                | or behind an Int8 convolution                        |                                              |
| float reader   | an Int8 convolution not fused with its activation,   | quantize the input of the float convolution; |
|                | because a float convolution reads its output         | its weights may stay float                   |
| detect         | the same before a detect convolution, where          | none: it costs accuracy (--head of           |
|                | quant-tools leaves its input in float by default     | quant-tools)                                 |
| float layer    | the same with another layer that reads float         | none, or quantize that layer                 |
| float weights  | Int8-to-float Reformat in front of convolutions      | none: it is the cheapest way to compute them |
|                | that compute in float                                | in float                                     |
| float producer | one float-to-Int8 Reformat behind a convolution that | quantize that convolution; a strided one     |
|                | computes in float                                    | that reads the image may stay                |
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

from dataclasses import replace
from typing import Callable, Iterator

from quantization.inspector.causes import EngineFinding, Evidence
from quantization.inspector.explain import (
    explain_dequantize,
    explain_quantize,
    explain_rescale,
    explain_split,
    explain_stem,
)
from quantization.inspector.explain_copies import (
    explain_boundary,
    explain_concat,
    explain_constant,
    explain_identity,
    explain_layout,
)
from quantization.inspector.records import Layer
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import concat_name, network_binding, stem_conversions

Describe = Callable[[EngineGraph, Evidence], EngineFinding]
# what comes first may claim layers of what comes later
_ORDER: tuple[Describe, ...] = (
    explain_stem,
    explain_identity,
    explain_constant,
    explain_split,
    explain_boundary,
    explain_quantize,
    explain_rescale,
    explain_dequantize,
    explain_concat,
    explain_layout,
)


def find_problems(graph: EngineGraph) -> list[EngineFinding]:
    """All findings; avoidable ones first, then the most costly.

    Every Reformat is in exactly one of them.
    """
    claimed: set[int] = set()
    findings: list[EngineFinding] = []
    for describe, evidence in _places(graph):
        layers = [layer for layer in evidence.layers if layer.index not in claimed]
        if layers:
            finding = describe(graph, replace(evidence, layers=layers))
            claimed |= set(finding.layers)
            findings.append(finding)
    return sorted(findings, key=by_cost)


def by_cost(finding: EngineFinding) -> tuple[bool, float, int, tuple[str, str]]:
    """Sort key: avoidable ones first, then the most costly."""
    return not finding.avoidable, -finding.cost_ms, -len(finding.layers), finding.key


def _places(graph: EngineGraph) -> Iterator[tuple[Describe, Evidence]]:
    """Reformats and split-off activations by what describes them and by the place that they share."""
    places: dict[tuple[int, str], Evidence] = {}

    def put(describe: Describe, place: str, found: Evidence) -> None:
        places.setdefault((_ORDER.index(describe), place), replace(found, layers=[])).layers.extend(found.layers)

    for conv, layers in stem_conversions(graph):
        put(explain_stem, conv.name, Evidence(layers, conv))
    for conv, after in graph.splits:
        between = graph.writers(after.index)
        # a dequantized operand of its sum, or a quantizer behind it, is the cause and gets the finding
        if not any(layer.dequantizes for layer in between) and not any(
            layer.quantizes for layer in graph.readers(after.index)
        ):
            found = [after, *(layer for layer in between if layer.quantizes)]
            put(explain_split, conv.name, Evidence(found, conv, after))
    for layer in graph.layers:
        if layer.is_reformat:
            describe, place = _describe_reformat(graph, layer)
            put(describe, place, Evidence([layer]))
    for order, place in sorted(places):
        yield _ORDER[order], places[order, place]


def _describe_reformat(graph: EngineGraph, layer: Layer) -> tuple[Describe, str]:
    """What describes a Reformat, and the place that it shares with others."""
    source, target = (tensors[0].name if tensors else layer.name for tensors in (layer.inputs, layer.outputs))
    binding = network_binding(graph, layer)
    if layer.index in graph.constant:
        return (explain_identity, "") if layer.name.startswith("Identity") else (explain_constant, source)
    if binding:
        return explain_boundary, binding
    for applies, describe in (
        (layer.quantizes, explain_quantize),
        (layer.rescales, explain_rescale),
        (layer.dequantizes, explain_dequantize),
    ):
        if applies:
            return describe, source
    if layer.origin == "CONCAT":
        return explain_concat, concat_name(graph, layer) or target
    return explain_layout, target
