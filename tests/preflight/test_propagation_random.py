"""The prediction of TensorRT's conversions on random graphs, against rewriting them move by move."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quantization.preflight.report import preflight
from support.qdq_net import CHANNELS, STYLES, Net


def rewrite_and_count(producers: dict[str, tuple[str, list[str]]], reads: list[tuple[str, Any]]) -> int:
    """Separate Q kernels by rewriting, one move at a time: a Q behind a MaxPool or Concat goes to its inputs.

    Args:
        producers: tensor to (operator, inputs), for what commutes; others are quantized convolutions.
        reads: (tensor, scale or "float").
    """
    edges = set(reads) | {(name, "via " + output) for output, (_, names) in producers.items() for name in names}
    moved = True
    while moved:
        moved = False
        for output, (_, names) in producers.items():
            wants = {what for name, what in edges if name == output}
            if len(wants) == 1 and not str(next(iter(wants))).startswith(("via", "float")):
                edges -= {(output, next(iter(wants)))}
                edges -= {(name, "via " + output) for name in names}
                edges |= {(name, next(iter(wants))) for name in names}
                moved = True
    total = 0
    for tensor in {name for name, _ in edges}:
        scales = {what for name, what in edges if name == tensor and isinstance(what, float)}
        others = {what for name, what in edges if name == tensor and not isinstance(what, float)}
        total += len(scales) if len(scales) > 1 or others else 0
    return total


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_against_rewriting(seed: int) -> None:
    """Random graphs of quantized convolutions, MaxPools and Concats: as many separate Q kernels as rewriting leaves."""
    rng = random.Random(seed)
    net = Net(rng.choice(STYLES))
    tensors, widths = [net.conv("images", "model.0")], {}
    widths[tensors[0]] = CHANNELS
    producers: dict[str, tuple[str, list[str]]] = {}
    reads: list[tuple[str, Any]] = []
    for number in range(1, rng.randint(4, 14)):
        x = rng.choice(tensors[-4:])
        kind = rng.choice(["conv", "conv", "pool", "concat"])
        if kind == "conv":
            scale = rng.choice([0.25, 0.5])
            reads.append((x, scale))
            y = net.conv(x, f"model.{number}", scale, inside=widths[x])
            widths[y] = CHANNELS
        elif kind == "pool":
            y = net.op("MaxPool", [x], kernel_shape=[1, 1])
            producers[y], widths[y] = ("MaxPool", [x]), widths[x]
        else:
            other = rng.choice(tensors)
            y = net.op("Concat", [x, other], axis=1)
            producers[y], widths[y] = ("Concat", [x, other]), widths[x] + widths[other]
        tensors.append(y)
    used = {name for name, _ in reads} | {name for _, names in producers.values() for name in names}
    for number, name in enumerate(name for name in tensors if name not in used):
        reads.append((name, "float"))
        net.outputs.append((net.conv(name, f"model.9{number}", None, "", inside=widths[name]), 4))
    report = preflight(net.model())
    assert report.separate_q["known"] + report.separate_q["avoidable"] == rewrite_and_count(producers, reads)
    assert report.requantize == 0 and report.type_changing == sum(report.separate_q.values())
