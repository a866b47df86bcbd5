"""Scale groups of random graphs: a partition, whatever the order of nodes, and what a brute-force propagation finds."""

from __future__ import annotations

import random
from typing import List, Tuple

import numpy as np
import pytest
from onnx import helper, numpy_helper

from quantization.onnx_graph.graph import OnnxGraph
from quantization.placement.scale_groups import MARKER_BASE, find_marked_classes

# data inputs of what commutes, by position; written from the definitions of the operators, not from rule_families
DATA = {
    "Concat": None,
    "MaxPool": 1,
    "Nearest": 1,
    "Identity": 1,
    "Transpose": 1,
    "Reshape": 1,
    "Slice": 1,
    "Split": 1,
    "Gather": 1,
}
BLOCKS = [*DATA, *["Linear", "AveragePool", "Add", "Relu"] * 2, *["Conv"] * 8]
Blueprint = List[Tuple[str, List[str], List[str]]]  # (block, inputs, outputs)


def random_blueprint(rng: random.Random) -> tuple[Blueprint, dict[int, str]]:
    """Blocks on tensors that exist, and the tensor that each marker reads; a marked tensor is read marked or not."""
    tensors, blocks, markers = ["x", "y"], [], {}
    for step in range(rng.randint(4, 40)):
        kind = rng.choice(BLOCKS)
        recent = tensors[-6:]
        inputs = [rng.choice(recent) for _ in range({"Concat": rng.randint(2, 4), "Add": 2}.get(kind, 1))]
        outputs = [f"t{step}_{index}" for index in range(3 if kind == "Split" else 1)]
        if kind in ("Conv", "Add", "Nearest") and rng.random() < 0.8:
            for index, name in enumerate(inputs):
                markers[len(markers)] = name
                inputs[index] = f"q{len(markers) - 1}"
        blocks.append((kind, inputs, outputs))
        tensors += outputs
    return blocks, markers


def to_onnx(blocks: Blueprint, markers: dict[int, str], rng: random.Random, shuffle: bool) -> OnnxGraph:
    names = {"Nearest": "Resize", "Linear": "Resize"}
    nodes = [
        helper.make_node("Mul", [read, f"m{number}"] if rng.random() < 0.5 else [f"m{number}", read], [f"q{number}"])
        for number, read in markers.items()
    ]
    for kind, inputs, outputs in blocks:
        attributes = {"mode": kind.lower()} if kind in names else {"axis": 1} if kind == "Concat" else {}
        constants = {
            "Reshape": ["k"],
            "Slice": ["k"] * 4,
            "Gather": ["k"],
            "Conv": ["k"],
            "Nearest": ["", "k"],
            "Linear": ["", "k"],
        }.get(kind, [])
        nodes.append(helper.make_node(names.get(kind, kind), inputs + constants, outputs, **attributes))
    if shuffle:
        rng.shuffle(nodes)
    values = [numpy_helper.from_array(np.float32(MARKER_BASE + number), f"m{number}") for number in markers]
    graph = helper.make_graph(nodes, "random", [], [], [*values, numpy_helper.from_array(np.float32([1]), "k")])
    return OnnxGraph(helper.make_model(graph))


def groups(graph: OnnxGraph) -> list[list[int]]:
    return [list(marked.markers) for marked in find_marked_classes(graph)]


def propagate(blocks: Blueprint, markers: dict[int, str], scales: dict[int, int]) -> dict[str, set[int]]:
    """The scales that each tensor must carry: moved over the commuting blocks, both ways, until nothing changes."""
    same = [[f"q{number}", read] for number, read in markers.items()]
    same += [inputs[: DATA[kind]] + outputs for kind, inputs, outputs in blocks if kind in DATA]
    needs: dict[str, set[int]] = {name: set() for names in same for name in names}
    for number, read in markers.items():
        needs[read].add(scales[number])
    changed = True
    while changed:
        changed = False
        for names in same:
            wanted = set().union(*(needs[name] for name in names))
            for name in names:
                if needs[name] != wanted:
                    needs[name], changed = set(wanted), True
    return needs


@pytest.mark.parametrize("chunk", range(4))
def test_random_graphs_against_brute_force(chunk: int) -> None:
    several = 0
    for seed in range(50 * chunk, 50 * chunk + 50):
        rng = random.Random(seed)
        blocks, markers = random_blueprint(rng)
        found = groups(to_onnx(blocks, markers, rng, shuffle=False))
        assert sorted(number for group in found for number in group) == sorted(markers), seed  # a partition
        assert groups(to_onnx(blocks, markers, rng, shuffle=True)) == found, seed

        group_of = {number: index for index, group in enumerate(found) for number in group}
        assert all(len(scales) <= 1 for scales in propagate(blocks, markers, group_of).values()), seed
        # and no group is larger than it must be: with a scale each, exactly the members of a group meet
        alone = propagate(blocks, markers, {number: number for number in markers})
        for number, read in markers.items():
            assert alone[read] == set(found[group_of[number]]), seed
        several += sum(len(group) > 1 for group in found) > 1
    assert several > 20  # graphs with several groups of several members: otherwise they would show little
