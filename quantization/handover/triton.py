"""A model repository of the Triton Inference Server, for a TensorRT plan that is built on the target."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from quantization.files import atomic_write
from quantization.handover.facts import NetworkFacts, TensorFacts

# names of model_config.proto (triton-inference-server/common); a plan whose outputs differ is refused by the server
TYPES = {"FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64"}


def write_triton(folder: Path, name: str, graph: onnx.ModelProto, facts: NetworkFacts, batch: int) -> list[Path]:
    """Write ``folder/name``: ``config.pbtxt``, ``labels.txt`` and ``1/model.onnx``; ``1/model.plan`` has to join it.

    Args:
        folder: the repository.
        name: of the model.
        graph: the ONNX.
        facts: of it.
        batch: images per batch at most, where the ONNX leaves them open.

    Returns:
        What was written.
    """
    model = folder / name
    files = {
        model / "config.pbtxt": triton_config(name, facts, batch).encode("utf-8"),
        model / "labels.txt": labels_text(facts).encode("utf-8"),
        model / "1" / "model.onnx": graph.SerializeToString(),
    }
    for file, content in files.items():
        with atomic_write(file) as temporary:
            Path(temporary).write_bytes(content)
    return list(files)


def labels_text(facts: NetworkFacts) -> str:
    """A class name a line."""
    return "".join(f"{name}\n" for name in facts.names)


def triton_config(name: str, facts: NetworkFacts, batch: int) -> str:
    """``config.pbtxt``, in protobuf's text format.

    A batch that the ONNX fixes is part of the shapes, and ``max_batch_size`` 0 says so; an open one is not, and Triton joins
    requests to batches of up to ``batch``.
    """
    fixed = () if facts.batch is None else (facts.batch,)
    lines = [
        "# model.plan is missing: build it from 1/model.onnx, with the TensorRT of this server and on its GPU",
        f"name: {json.dumps(name, ensure_ascii=False)}",
        'backend: "tensorrt"',
        'default_model_filename: "model.plan"',
        f"max_batch_size: {0 if fixed else batch}",
        _list("input", [_tensor(facts.input, fixed)]),
        _list("output", [_tensor(output, fixed) for output in facts.outputs]),
        "instance_group [ { kind: KIND_GPU, count: 1 } ]",
    ]
    if not fixed and batch > 1:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _list(field: str, entries: list[str]) -> str:
    return f"{field} [\n  " + ",\n  ".join(entries) + "\n]"


def _tensor(tensor: TensorFacts, fixed: tuple[int, ...]) -> str:
    sides = ", ".join(map(str, (*fixed, *tensor.shape)))
    return f"{{ name: {json.dumps(tensor.name)}, data_type: {TYPES[tensor.kind]}, dims: [ {sides} ] }}"
