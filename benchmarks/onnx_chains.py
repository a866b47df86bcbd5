"""Processor seconds that loading and checking a chain of many nodes takes: python benchmarks/onnx_chains.py [NODES]. No torch.

Every pass over a graph should take time in proportion to its nodes, whatever they are; the table also has half as many,
so that a pass that does not shows: its last column is far above 2.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.onnx_graph.graph import OnnxGraph
from quantization.onnx_graph.load import load_onnx
from quantization.preflight.drawing import to_dot
from quantization.preflight.report import preflight, report_text

SCALE, ZERO = "scale", "zero"


def quantized(x: str, number: int) -> list[NodeProto]:
    """A Q/DQ pair that reads ``x``; its output is ``dq<number>``."""
    return [
        helper.make_node("QuantizeLinear", [x, SCALE, ZERO], [f"q{number}"]),
        helper.make_node("DequantizeLinear", [f"q{number}", SCALE, ZERO], [f"dq{number}"]),
    ]


def link(kind: str, x: str, number: int) -> list[NodeProto]:
    """The nodes of one link of a chain, from ``x`` to ``t<number>``."""
    out = f"t{number}"
    if kind == "Conv":
        q = quantized(x, number)
        return [*q, helper.make_node("Conv", [f"dq{number}", "weight"], [out])]
    if kind == "pairs":
        return [*quantized(x, number), helper.make_node("Identity", [f"dq{number}"], [out])]
    if kind == "forks":  # a pair beside every link
        extra = [*quantized(x, number), helper.make_node("Conv", [f"dq{number}", "weight"], [f"side{number}"])]
        return [helper.make_node("Relu", [x], [out]), *extra]
    if kind == "pools with forks":
        extra = [*quantized(x, number), helper.make_node("Conv", [f"dq{number}", "weight"], [f"side{number}"])]
        return [helper.make_node("MaxPool", [x], [out], kernel_shape=[1, 1]), *extra]
    if kind == "identities, each read":
        return [helper.make_node("Identity", [x], [out]), helper.make_node("Relu", [x], [f"side{number}"])]
    if kind == "Concat":
        return [helper.make_node("Concat", [x, "first"], [out], axis=2)]
    if kind == "Add":
        return [helper.make_node("Add", [x, "first"], [out])]
    attributes: dict[str, Any] = {"kernel_shape": [1, 1]} if kind == "MaxPool" else {}
    return [helper.make_node(kind, [x], [out], **attributes)]


KINDS = (
    "Relu",
    "Identity",
    "MaxPool",
    "Transpose",
    "Add",
    "Concat",
    "Conv",
    "pairs",
    "forks",
    "pools with forks",
    "identities, each read",
    "Relu, backwards",
)


def chain(kind: str, count: int) -> onnx.ModelProto:
    """A chain of about ``count`` nodes between two quantized convolutions."""
    nodes = [*quantized("images", -1), helper.make_node("Conv", ["dq-1", "weight"], ["first"])]
    x, number = "first", 0
    while len(nodes) < count:
        nodes += link(kind.split(", backwards")[0], x, number)
        x, number = f"t{number}", number + 1
    nodes += [*quantized(x, number), helper.make_node("Conv", [f"dq{number}", "weight"], ["out"])]
    if kind.endswith("backwards"):
        nodes.reverse()
    constants = [
        numpy_helper.from_array(np.float32(0.1), SCALE),
        numpy_helper.from_array(np.int8(0), ZERO),
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "weight"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("images", "out")]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def measure(kind: str, count: int) -> dict[str, float]:
    """Processor seconds of each stage, and of all but the drawing."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "chain.onnx")
        onnx.save(chain(kind, count), file)
        begin = time.process_time()
        model = load_onnx(file)
        seconds["load"] = time.process_time() - begin
        report_text(preflight(model))
        seconds["check"] = time.process_time() - begin
        to_dot(model)
        seconds["draw"] = time.process_time() - begin - seconds["check"]
        begin = time.process_time()
        graph = OnnxGraph(model)
        for node in graph.nodes:
            graph.is_constant(node.input[0])
        seconds["constants"] = time.process_time() - begin
    return seconds


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print(
        f"{count} nodes: processor seconds to load, to load and check, to draw, to look for constants; check at half as many"
    )
    for kind in KINDS:
        whole, half = measure(kind, count), measure(kind, count // 2)
        cells = [f"{whole[name]:6.2f}" for name in ("load", "check", "draw", "constants")]
        print(f"{kind:24s}", *cells, f"{half['check']:6.2f}  x {whole['check'] / half['check']:.1f}", flush=True)


if __name__ == "__main__":
    main()
