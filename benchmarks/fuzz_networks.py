"""Damaged checkpoints, records and ONNX files, and how each is read."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from fuzz_changes import change_bytes, change_tree
from onnx import helper, numpy_helper
from torch import nn

from quantization.onnx_graph.load import load_onnx
from quantization.preflight.report import preflight, report_text
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord, read_record

FIXTURE = (
    Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "checkpoints" / "yolov5-0.1.pt"
)  # needs a checkout


RECORD = CheckpointRecord(
    groups=[["model.1"]],
    calib_method="mse",
    backend="native",
    versions={"torch": "2"},
    options={"head": "auto", "ignore_policy": []},
    amax={"model.1._input_quantizer": 1.0},
    placement={"float_layers": ["a"], "float_weights": [], "extras": True},
    history=[{"epoch": 1, "loss": 0.1}],
).content()


def make_record(rng: random.Random) -> bytes:
    """A record, pickled."""
    return pickle.dumps(change_tree(rng, RECORD))


def read_pickled_record(file: Path) -> Any:
    """A record and what export makes of it."""
    record = read_record(pickle.loads(file.read_bytes()), str(file))  # our own pickle
    if record is not None:
        json.dumps(record.content())
        dict(record.placement or {})


def _saved(content: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _checkpoints() -> list[bytes]:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU())
    model.model, model.stride, model.names = nn.Sequential(model[0], model[1]), torch.tensor([8.0]), ["a"]
    content = {
        "model": model,
        "ema": None,
        "quant_tools": RECORD,
        "a": np.arange(3.0),
        "b": np.float64(1),
        "c": OrderedDict(a={1, 2}),
    }
    return [
        FIXTURE.read_bytes(),
        FIXTURE.read_bytes(),
        _saved(content),
        _saved(content, zipped=False),
        _saved({"model": None, "x": [bytearray(b"a"), Path("a"), b"\xff"]}),
    ]


CHECKPOINTS: list[bytes] = []


def make_checkpoint(rng: random.Random) -> bytes:
    """A checkpoint of either format: its bytes changed, or those of its pickle alone."""
    if not CHECKPOINTS:
        CHECKPOINTS.extend(_checkpoints())
    data = rng.choice(CHECKPOINTS)
    if not data.startswith(b"PK") or rng.random() < 0.2:
        return change_bytes(rng, data)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change_opcodes(rng, content) if name.endswith("data.pkl") else content)
    return stream.getvalue()


def change_opcodes(rng: random.Random, data: bytes) -> bytes:
    """A pickle with single bytes changed, most to other opcodes."""
    content = bytearray(change_bytes(rng, data) if rng.random() < 0.3 else data)
    for _ in range(rng.randint(0, 4) if content else 0):
        content[rng.randrange(len(content))] = rng.choice(
            b"().]}abRtuesQKJMXqhrjcN0129\x85\x86\x87\x81\x93\x94\x8c\xff\0"
        )
    return bytes(content)


def read_checkpoint(file: Path) -> Any:
    """As the commands do."""
    return checkpoint.load(str(file), torch.device("cpu"), "yolov5")


def small_graph() -> onnx.ModelProto:
    """Two quantized convolutions with a shortcut."""
    pair = lambda x, n: [  # noqa: E731
        helper.make_node("QuantizeLinear", [x, "scale", "zero"], [f"q{n}"]),
        helper.make_node("DequantizeLinear", [f"q{n}", "scale", "zero"], [f"dq{n}"]),
    ]
    nodes = [
        *pair("x", 0),
        *pair("w", 1),
        helper.make_node("Conv", ["dq0", "dq1"], ["c"], name="/model/model.0/Conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        *pair("r", 2),
        helper.make_node("MaxPool", ["dq2"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["m", "c"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
    ]
    weights = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "w": np.ones((4, 4, 1, 1), np.float32),
        "shape": np.array([1, -1]),
    }
    value = lambda name, shape: helper.make_tensor_value_info(name, 1, shape)  # noqa: E731
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 4, 8, 8])], [value("z", [1, 256])], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


GRAPH = small_graph()


def make_onnx(rng: random.Random) -> bytes:
    """A graph with nodes and names mixed up, or its bytes changed."""
    model = onnx.ModelProto()
    model.CopyFrom(GRAPH)
    graph = model.graph
    for _ in range(rng.randint(0, 3)):
        node = rng.choice(graph.node) if graph.node else None
        tensor = rng.choice(graph.initializer) if graph.initializer else None
        names = [name for other in graph.node for name in (*other.input, *other.output)] + ["x", "", "no"]
        what = rng.randrange(9)
        if node is not None and what < 2 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif node is not None and what == 2 and node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice(names)
        elif node is not None and what == 3:
            node.op_type = rng.choice(
                [other.op_type for other in graph.node] + ["Constant", "If", "Loop", "", "Identity"]
            )
        elif node is not None and what == 4:
            graph.node.remove(node)
        elif node is not None and what == 5:
            del node.input[:], node.attribute[:]
        elif tensor is not None and what == 6:
            tensor.dims[:] = rng.choice(([], [0], [-1], [2**40], [4], [1, 4]))
        elif tensor is not None and what == 7:
            tensor.data_type = rng.randrange(25)
        elif graph.input:
            shape = graph.input[0].type.tensor_type.shape
            rng.choice(
                (
                    shape.dim.clear if hasattr(shape.dim, "clear") else lambda: None,
                    lambda: shape.dim.add(dim_value=-5),
                    graph.input.pop,
                )
            )()
    data = model.SerializeToString()
    return change_bytes(rng, data) if rng.random() < 0.4 else data


def read_onnx(file: Path) -> Any:
    """A graph and the report on it."""
    return report_text(preflight(load_onnx(str(file))))
