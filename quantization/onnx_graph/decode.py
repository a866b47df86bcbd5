"""What belongs to the decode of a head although it has weights: the expectation of a distribution.

    box map -- Reshape -- Transpose -- Softmax -- Conv (weights 0, 1 ... 15) -- boxes

YOLOv8 and its successors predict each side of a box as a distribution over distances (Li et al., "Generalized Focal Loss",
NeurIPS 2020), and exporters write its mean as a convolution or a matrix product; ``box_formula`` as one with the boxes.
"""

from __future__ import annotations

from onnx import NodeProto

from quantization.onnx_graph.commuting import commutes
from quantization.onnx_graph.graph import OnnxGraph


def is_expectation(node: NodeProto, graph: OnnxGraph) -> bool:
    """Whether a convolution or matrix product with a constant weight takes the mean of what a Softmax gives."""
    computed = [name for name in node.input[:2] if not graph.is_constant(name)]
    if len(node.input) < 2 or len(computed) != 1:
        return False
    before = graph.producer.get(computed[0])
    while before is not None and commutes(before, graph):
        before = graph.producer.get(before.input[0])
    return before is not None and before.op_type == "Softmax"
