"""Which layers of a float graph may be quantized at all, and why the others stay float, before anything is placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

from quantization.errors import UserError
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import attribute
from quantization.onnx_graph.module_path import path_matcher
from quantization.options import LayerOptions
from quantization.preflight.operators import ACTIVATIONS, CONVOLUTIONS, WEIGHTED
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.subject import (
    head_convolutions,
    stem_convolutions,
    stem_is_faster_in_float,
    unfused_operators,
)

POLICY = "--ignore-policy"
HEAD_REASON = "its output is boxes or scores"
RESIZES = ("Resize", "Upsample")
POOL = "AveragePool"
ADD = "Add"
OPERATIONS = (*RESIZES, POOL, ADD)  # without weights, whose inputs may get Q/DQ


@dataclass(frozen=True)
class Candidates:
    """The layers with weights of a float graph, by position.

    Attributes:
        layers: may be quantized, in the order of the graph.
        head: of the others, those that end in boxes and scores; their inputs may be quantized.
        reasons: why each of the others, and an operation without weights that the policy names, stays float.
        paired: of the layers, those with Q/DQ before their activation.
    """

    layers: tuple[int, ...]
    head: tuple[int, ...]
    reasons: dict[int, str]
    paired: tuple[int, ...] = ()


def find_candidates(graph: QdqGraph, options: LayerOptions) -> Candidates:
    """The layers that may be quantized.

    Args:
        graph: a float one.
        options: stem, head, policy and pairs before activations.

    Raises:
        UserError: a pattern of the policy is no regular expression, or matches nothing.
    """
    ignored = policy_matcher(graph, options.ignore_policy)
    head = head_convolutions(graph)
    paired = paired_convolutions(graph, options.activation_pairs)
    stems = float_stems(graph, options.stem, paired)
    layers: list[int] = []
    reasons: dict[int, str] = {}
    for position, node in enumerate(graph.nodes):
        if node.op_type in OPERATIONS and ignored(graph.layer(position)):
            reasons[position] = POLICY
        if node.op_type not in WEIGHTED or (node.op_type not in CONVOLUTIONS and graph.weight(position) is None):
            continue  # a product of two tensors that are both computed is no layer
        reason = refused_weight(graph, position)
        if ignored(graph.layer(position)):
            reason = POLICY
        elif is_expectation(node, graph.onnx):
            reason = "it takes the mean of a distribution: part of the decode"
        elif position in head and options.head != "int8":
            reason = HEAD_REASON
        elif position in stems:
            reason = "it reads the image"
        if reason is None:
            layers.append(position)
        else:
            reasons[position] = reason
    free = (position for position in sorted(head) if graph.nodes[position].op_type == "Conv")
    heads = tuple(position for position in free if reasons.get(position) == HEAD_REASON)
    return Candidates(tuple(layers), heads, reasons, tuple(position for position in layers if position in paired))


def float_stems(graph: QdqGraph, choice: str, paired: set[int]) -> set[int]:
    """The convolutions that read the image and are to stay float; "auto" as ``onnx_graph.stem`` says.

    Args:
        graph: a float one.
        choice: one of ``options.STEMS``.
        paired: convolutions with Q/DQ before their activation.
    """
    stems = set() if choice == "int8" else stem_convolutions(graph)
    if choice == "float":
        return stems
    return {position for position in stems if stem_is_faster_in_float(graph, position, position in paired)}


def paired_convolutions(graph: QdqGraph, choice: str) -> set[int]:
    """The convolutions that get Q/DQ before their activation, as far as they are quantized; see ``--activation-pairs``."""
    if choice == "none":
        return set()
    among = stem_convolutions(graph) if choice == "stem" else range(len(graph.nodes))
    found = set()
    for position in among:
        node = graph.nodes[position]
        readers = {read.node for read in graph.readers.get(node.output[0], [])}
        operators = {graph.nodes[reader].op_type if reader >= 0 else "" for reader in readers}
        if node.op_type in CONVOLUTIONS and operators <= ACTIVATIONS and unfused_operators(graph, position):
            found.add(position)
    return found


def policy_matcher(graph: QdqGraph, patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether the policy leaves the layer of a path in float; see ``path_matcher``.

    Raises:
        UserError: a pattern is no regular expression, or matches no layer.
    """
    paths = list(dict.fromkeys(graph.layer(position) for position in range(len(graph.nodes))))
    for pattern in patterns:
        if not any(map(path_matcher([pattern], POLICY), paths)):
            raise UserError(
                f"{POLICY} {pattern!r} matches no layer: it must match a whole name such as "
                f"{paths[len(paths) // 2]!r}, or that of a module above it; use .* for a part"
            )
    return path_matcher(patterns, POLICY)


def refused_weight(graph: QdqGraph, position: int) -> str | None:
    """Why a layer's weight cannot be quantized by output channel; None if it can."""
    node = graph.nodes[position]
    if node.op_type not in CONVOLUTIONS:
        return "it is no convolution: only those are quantized"
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return "it is a transposed convolution in groups, whose weight has no axis for the output channels"
    weight = graph.onnx.constant(node.input[1])
    if weight is None:
        return "its weight is computed in the graph"
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}"
    return None
