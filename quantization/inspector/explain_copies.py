"""The words of a finding about copies and conversions that no Q or DQ causes."""

from __future__ import annotations

from quantization.inspector.causes import EngineFinding, Evidence, make_finding
from quantization.inspector.names import counted, words
from quantization.inspector.topology import EngineGraph
from quantization.inspector.trace import concat_name, modules, producer, readers


def explain_concat(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Copies into the output of one Concat; a branch in another scale is ``rescale`` or ``quantize``, not a copy."""
    layers = evidence.layers
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
    resized = [any(each.kind == "resize" for each in writers) for writers in before]
    shared = [any(len(graph.readers(each.index)) > 1 for each in writers) for writers in before]
    changes = sorted({" to ".join(layer.type_change) for layer in layers if layer.type_change})
    of = f"{len(layers)} of " if branches >= len(layers) else ""
    text = f"Concat {name}: {of}{counted(max(branches, len(layers)), 'branch')} copied into its output, "
    text += ", ".join(changes) if changes else "type unchanged"
    text += f"; {sum(shared)} with further readers" if any(shared) else ""
    text += f"; {sum(resized)} from a Resize" if any(resized) else ""
    return make_finding(("concat", name), text, "", layers, avoidable=False)


def explain_boundary(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Reformats at a network input or output."""
    layers = evidence.layers
    given = next((edge for edge in graph.incoming[layers[0].index] if edge.source is None), None)
    taken = [edge for edge in graph.outgoing[layers[0].index] if edge.target is None]
    name, what = (given.tensor.name, "input") if given else (taken[0].tensor.name, "output")
    steps = {
        f"{layer.inputs[0].format} to {layer.outputs[0].format}" for layer in layers if layer.inputs and layer.outputs
    }
    text = f"{name}, an {what} of the network, is converted: {words(sorted(steps))}"
    return make_finding(("boundary", name), text, "", layers, avoidable=False)


def explain_layout(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """A Reformat between two layouts of one type, or of a type that no other cause covers."""
    layers = evidence.layers
    name, _, _ = producer(graph, layers[0])
    after = modules(readers(graph, layers[0]))
    before, behind = (str(tensors[0]) if tensors else "?" for tensors in (layers[0].inputs, layers[0].outputs))
    text = f"{name} gives {before}, {words(after)} {'takes' if len(after) == 1 else 'take'} {behind}"
    return make_finding(("layout", f"{name} to {words(after)}"), text, "", layers, avoidable=False)


def explain_identity(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Biases that an exporter merged."""
    count = len(evidence.layers)
    text = f"{counted(count, 'bias')} {'is' if count == 1 else 'are'} copied at every inference"
    return make_finding(("identity", ""), text, "", evidence.layers)


def explain_constant(graph: EngineGraph, evidence: Evidence) -> EngineFinding:
    """Another constant that is converted."""
    layers = evidence.layers
    before, after = graph.writers(layers[0].index), words(modules(readers(graph, layers[0])))
    name = before[0].title if before else layers[0].name
    text = (
        f"{name}, a constant, is converted from {layers[0].inputs[0].format} to {layers[0].outputs[0].format} "
        f"for {after} at every inference"
    )
    return make_finding(("constants", f"{name} to {after}"), text, "", layers, avoidable=False)
