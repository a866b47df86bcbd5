"""The checks of a Q/DQ ONNX that look at tensors: duplicate pairs, outputs."""

from __future__ import annotations

from quantization.preflight.findings import Finding, some
from quantization.preflight.subject import Subject


def check_duplicates(subject: Subject) -> list[Finding]:
    """No tensor has two Q/DQ pairs of one scale, side by side or behind each other."""
    tensors: dict[str, None] = {}
    layers: dict[str, None] = {}
    for tensor, reads in subject.graph.readers.items():
        first: dict[object, str] = {}
        for read in reads:
            keys = [pair.key for pair in read.pairs]
            twice = any(a == b for a, b in zip(keys, keys[1:]))
            if twice or (read.pairs and first.setdefault(keys[0], read.pairs[0].name) != read.pairs[0].name):
                tensors[tensor] = None
                layers[subject.graph.layer(read.node)] = None
    if not tensors:
        return []
    return [
        Finding(
            "duplicates",
            "warn",
            f"{len(tensors)} tensors have more than one Q/DQ pair of one scale (in front of "
            f"{some(list(layers))}): TensorRT merges them, but builds longer",
            "merge equal pairs",
            list(layers),
            list(tensors),
        )
    ]


def check_outputs(subject: Subject) -> list[Finding]:
    """The raw maps of the head are no outputs beside the detections."""
    graph = subject.graph
    values = {value.name: graph.shape(value.name) for value in graph.onnx.model.graph.output}
    raw = [name for name, shape in values.items() if shape is not None and len(shape) == 5]
    if not raw or len(raw) == len(values):
        return []
    return [
        Finding(
            "outputs",
            "fail",
            f"{len(raw)} raw maps of the head are outputs beside the detections ({some(raw)}): "
            "TensorRT must convert each to float32 and keep it",
            "export with export=True on the head, as the export command does",
            [],
            raw,
            len(raw),
            sum(graph.elements(name) for name in raw),
        )
    ]
