"""What the checks of a Q/DQ ONNX look at, and what they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Iterable

from quantization.preflight.propagation import POINTWISE, Propagation
from quantization.preflight.qdq_graph import CONVOLUTIONS, QdqGraph

SEVERITIES = ("fail", "warn", "known")


@dataclass
class Finding:
    """A hazard and its mitigation.

    Attributes:
        check: name of the check.
        severity: "fail": costs a kernel or the build, and can be mended; "warn": costs accuracy, nothing in the engine,
            or time in some versions of TensorRT; "known": costs a kernel that the network or the policy asks for.
        what: one line: what is there, and what TensorRT does about it.
        change: what to do.
        layers: the layers concerned.
        tensors: the tensors concerned, as the ONNX has them.
        kernels: kernels that TensorRT inserts.
        elements: activation elements that these kernels pass, or that stay float; 0 if unknown.
    """

    check: str
    severity: str
    what: str
    change: str
    layers: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    kernels: int = 0
    elements: int = 0


@dataclass
class Subject:
    """What the checks look at.

    Attributes:
        graph: the file.
        propagation: the prediction for it.
        head: convolutions whose outputs reach a graph output without another convolution.
        stems: convolutions with a stride that read the image.
        policy: convolutions that the ignore policy leaves in float.
    """

    graph: QdqGraph
    propagation: Propagation
    head: set[int]
    stems: set[int]
    policy: set[int]

    @property
    def allowed(self) -> set[int]:
        """Layers that may stay float."""
        return self.head | self.stems | self.policy

    @cached_property
    def tail(self) -> set[int]:
        """Layers behind which nothing runs in INT8: the head and the decode; -1, a graph output, among them."""
        graph = self.graph
        leads: set[int] = set()
        for position in range(len(graph.nodes) - 1, -1, -1):
            readers = [read.node for name in graph.nodes[position].output for read in graph.readers.get(name, [])]
            if position in self.propagation.quantized or any(reader in leads for reader in readers):
                leads.add(position)
        return {-1, *range(len(graph.nodes))} - leads

    def float_maker(self, tensor: str) -> int | None:
        """The layer, float without being asked to be, whose activation makes the tensor."""
        position = self.graph.producer[tensor]
        while self.graph.nodes[position].op_type in POINTWISE and self.graph.reads[position]:
            position = self.graph.producer.get(self.graph.reads[position][0].tensor, -1)
            if position < 0:
                return None
        return position if self.should_be_int8(position) and position not in self.allowed else None

    def should_be_int8(self, position: int) -> bool:
        """Whether a layer has a weight, or is a convolution by one: what quantization is for."""
        return self.graph.nodes[position].op_type in CONVOLUTIONS or self.graph.weight(position) is not None

    def names(self, positions: Iterable[int]) -> list[str]:
        return list(dict.fromkeys(self.graph.layer(position) for position in positions))


def some(names: list[str], most: int = 4) -> str:
    """Names for a line of text, the first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
