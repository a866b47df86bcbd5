"""The operations that Q and DQ move over, one function a family, and why the others stop them.

A family answers for one node: the tensors that must carry one scale. Quantization is a function of each value by
itself, so it commutes with every operation that only picks, copies or moves values. (TensorRT documents the principle
under "Q/DQ propagation" in "Working with Quantized Types".) Fan-out needs no function: a tensor that several nodes
read is one member of one class.

                +-- conv a                        +--Q-- conv a
        t ------+                 =>      t ------+                   one Q: both read the same INT8 tensor
                +-- conv b                        +--Q-- conv b

Shape computations (Shape - Gather - Concat - second input of Reshape) never meet the data: Shape is in no family, and
a family looks at data inputs only. Constants are left out: two nodes that share one have nothing else in common.
"""

from __future__ import annotations

from typing import Callable, List

from onnx import NodeProto

from quantization.onnx_graph.graph import OnnxGraph, attribute

Family = Callable[[NodeProto, OnnxGraph], List[str]]


def concat(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """Concat copies values, so it runs in INT8, in place, if all carry one scale; other scales cost a Reformat each.

    ::

        a --+                         a --Q--+
            +-- Concat -- c     =>           +-- Concat --Q-- c
        b --+                         b --Q--+
    """
    return [*node.input, node.output[0]]


def max_pool(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """MaxPool picks a value, and rounding keeps the order of values. SPP, SPPF, SPPCSPC, MP, SP, DownC, Stem.

    ::

        a -- MaxPool -- b           =>      a --Q-- MaxPool --Q-- b
    """
    return [node.input[0], node.output[0]]


def nearest_resize(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """Nearest Resize copies values. The other modes make values between the levels and are in no class.

    ::

        a -- Resize (nearest) -- b  =>      a --Q-- Resize --Q-- b
    """
    return [node.input[0], node.output[0]] if attribute(node, "mode", "nearest") == "nearest" else []


def rearrangement(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """Identity, Transpose, Reshape, Flatten, Squeeze, Unsqueeze, DepthToSpace keep every value. Contract, Expand.

    ::

        a -- Transpose -- b         =>      a --Q-- Transpose --Q-- b
        shape computation ------ Reshape's second input: not joined
    """
    return [node.input[0], node.output[0]]


def slicing(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """Slice and Split pick values. Focus and ReOrg (strided slices, then Concat), Chuncat and Foldcut (chunk).

    ::

                +-- b                             +--Q-- b
        a -- Split                  =>    a --Q-- Split
                +-- c                             +--Q-- c
    """
    return [node.input[0], *node.output]


def constant_gather(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """Gather with a constant index is a Slice (``x[:, 0]``). With a computed index it is a look-up in a table.

    ::

        a -- Gather (constant) -- b =>      a --Q-- Gather --Q-- b
    """
    return [node.input[0], node.output[0]] if graph.is_constant(node.input[1]) else []


FAMILIES: dict[str, Family] = {
    "Concat": concat,
    "MaxPool": max_pool,
    "Resize": nearest_resize,
    "Upsample": nearest_resize,
    "Identity": rearrangement,
    "Transpose": rearrangement,
    "Reshape": rearrangement,
    "Flatten": rearrangement,
    "Squeeze": rearrangement,
    "Unsqueeze": rearrangement,
    "DepthToSpace": rearrangement,
    "SpaceToDepth": rearrangement,
    "Slice": slicing,
    "Split": slicing,
    "Gather": constant_gather,
}


def joined_tensors(node: NodeProto, graph: OnnxGraph) -> list[str]:
    """The tensors that ``node`` forces to one scale; empty if it does not commute with Q/DQ."""
    family = FAMILIES.get(node.op_type)
    if family is None:
        return []
    return [name for name in family(node, graph) if name and not graph.is_constant(name)]


def commutes(node: NodeProto, graph: OnnxGraph) -> bool:
    """Whether Q and DQ move over the node."""
    return bool(joined_tensors(node, graph))


NO_VALUES = {"Shape", "Size"}  # they read a tensor's shape, whatever its type
LEFT_FLOAT = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Sum", "BatchNormalization", "Sigmoid", "Softmax", "LeakyRelu", "Relu"}
MEANS = {"AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Upsample"}


def refusal(node: NodeProto) -> str:
    """Why a node that reads a tensor joins no class, in a few words."""
    if node.op_type in LEFT_FLOAT:
        return "left in float"
    if node.op_type in ARITHMETIC:
        return "whose result needs a scale of its own"
    if node.op_type in MEANS:
        return "which makes values between the levels"
    return f"{node.op_type} is not known to commute with Q/DQ"
