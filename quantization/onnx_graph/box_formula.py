"""The decode of a head that predicts distributions over distances (YOLOv8 and its successors), as one matrix product.

    exported:  maps -- Reshape -- Transpose -- Softmax -- Conv (0 ... K-1) -- Reshape -- Slice, Sub, Add, Div, Concat, Mul -- boxes
    here:      maps -- Reshape -------------- Softmax -- Reshape -- MatMul -- Mul -- Add -- boxes

For N cells the maps are (B, 4 K, N). What follows the mean is affine in the four distances d of each cell, with one 4x4
matrix M up to the stride of the cell: boxes[:, n] = s[n] * M d[:, n] + c[:, n]. Mean and M are one product, and nothing is
transposed. Exporters write the affine part in many ways, so it is not recognized by its nodes but evaluated, at zero and at
the unit vectors, and the result is compared with it at random distances. It is the same function and the same output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from quantization.onnx_graph.cleanup import remove_unread_constants
from quantization.onnx_graph.decode import is_expectation
from quantization.onnx_graph.graph import OnnxGraph, attribute, without_weights
from quantization.onnx_graph.session import session_options

SIDES = 4  # of a box
AFFINE = {"Slice", "Split", "Concat", "Identity", "Add", "Sub", "Mul", "Div", "Neg", "Shape", "Gather"}
TOLERANCE = 1e-5  # of the largest value, for float32


@dataclass(frozen=True)
class Distribution:
    """The nodes from the maps to the mean of their distributions.

    Attributes:
        maps: the tensor (B, 4 K, N).
        nodes: Reshape, Transpose, Softmax, Conv, Reshape.
        values: (K,), what the mean is taken of.
    """

    maps: str
    nodes: tuple[NodeProto, ...]
    values: np.ndarray

    @property
    def mean(self) -> str:
        """The tensor (B, 4, N)."""
        return str(self.nodes[-1].output[0])


@dataclass(frozen=True)
class Affine:
    """scale * matrix d + offset, for the distances d of each cell.

    Attributes:
        matrix: (4, 4).
        scale: (N,).
        offset: (4, N).
    """

    matrix: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def __call__(self, distances: np.ndarray) -> np.ndarray:
        """The boxes of distances, both (4, N) or (B, 4, N)."""
        return np.asarray(self.scale * (self.matrix @ distances) + self.offset)


def respell_box_decode(model: ModelProto) -> bool:
    """Write the decode of distributions as one product, in place; whether there was one to write.

    A graph in which the number of cells is open, or whose nodes are others, stays as it is.
    """
    graph = OnnxGraph(model)
    found = [part for node in graph.nodes if (part := find_distribution(graph, node)) is not None]
    return any([_respell(model, graph, part) for part in found])


def find_distribution(graph: OnnxGraph, softmax: NodeProto) -> Distribution | None:
    """The distributions that a Softmax makes, if it is one of a box decode."""
    if softmax.op_type != "Softmax":
        return None
    transpose = graph.producer.get(softmax.input[0])
    if transpose is None or transpose.op_type != "Transpose":
        return None
    before = graph.producer.get(transpose.input[0])
    mean = _only_reader(graph, softmax)
    after = _only_reader(graph, mean) if mean is not None else None
    if before is None or mean is None or after is None:
        return None
    chain = (before, transpose, softmax, mean, after)
    if [node.op_type for node in chain] != ["Reshape", "Transpose", "Softmax", "Conv", "Reshape"]:
        return None
    weight, shape = graph.constant(mean.input[1]), graph.constant(before.input[1])
    if (
        weight is None
        or shape is None
        or len(shape) != 4
        or len(mean.input) > 2
        or not is_expectation(mean, graph)
        or list(shape[1:3]) != [SIDES, weight.size]
        or weight.shape != (1, weight.size, 1, 1)
        or list(attribute(transpose, "perm", [])) != [0, 2, 1, 3]
        or attribute(softmax, "axis", -1) != 1
        or len(graph.consumers[transpose.input[0]]) + len(graph.consumers[softmax.input[0]]) != 2
        or {transpose.input[0], softmax.input[0]} & graph.outputs
    ):
        return None
    return Distribution(before.input[0], chain, weight.reshape(-1).astype(np.float64))


def _only_reader(graph: OnnxGraph, node: NodeProto) -> NodeProto | None:
    readers = graph.consumers.get(node.output[0], [])
    return readers[0][0] if len(readers) == 1 and node.output[0] not in graph.outputs else None


def affine_part(graph: OnnxGraph, start: str) -> tuple[list[NodeProto], str]:
    """The nodes behind a tensor that add to it, scale and rearrange it, and the one tensor that comes of them.

    Returns:
        No nodes and ``start`` itself, if several tensors come of them.
    """
    inside, nodes = {start}, []
    for node in graph.nodes:
        named = [name for name in node.input if name]
        if node.op_type in AFFINE and inside.intersection(named):
            if all(name in inside or graph.is_constant(name) for name in named):
                nodes.append(node)
                inside.update(node.output)
    members = set(map(id, nodes))
    ends = [
        name
        for name in inside
        if name in graph.outputs or any(id(node) not in members for node, _ in graph.consumers.get(name, []))
    ]
    return (nodes, ends[0]) if len(ends) == 1 and ends[0] != start else ([], start)


def measure_affine(model: ModelProto, nodes: list[NodeProto], start: str, end: str, shape: list[int]) -> Affine | None:
    """The affine function that ``nodes`` are; None if they are none of this kind.

    Args:
        model: whose nodes they are.
        nodes: from ``start`` to ``end``; none: the identity.
        start: a tensor of ``shape``.
        end: another one.
        shape: (B, 4, N).
    """
    cells = shape[2]
    if not nodes:
        return Affine(np.eye(SIDES), np.ones(cells), np.zeros((SIDES, cells)))
    run = _Part(model, nodes, start, end, shape)
    zero = run(np.zeros((SIDES, cells)))
    if zero is None:
        return None
    offset = zero[0]
    columns = [run(np.eye(SIDES)[:, [side]].repeat(cells, 1)) for side in range(SIDES)]
    slopes = np.stack([column[0] - offset for column in columns if column is not None], 1)  # (4, 4, N)
    scale = np.abs(slopes).max((0, 1))
    if not scale.all():
        return None
    found = Affine((slopes / scale)[..., 0], scale, offset)
    # others in each image, since the nodes may treat images differently
    distances = np.random.default_rng(0).uniform(0, 16, shape)
    wanted = run(distances)
    if wanted is None or not np.abs(found(distances) - wanted).max() <= TOLERANCE * np.abs(wanted).max():  # or NaN
        return None
    return found


class _Part:
    """Some nodes of a model, run by ONNX Runtime."""

    def __init__(self, model: ModelProto, nodes: list[NodeProto], start: str, end: str, shape: list[int]) -> None:
        import onnxruntime

        read = {name for node in nodes for name in node.input}
        constants = [node for node in model.graph.node if node.op_type == "Constant" and node.output[0] in read]
        part = helper.make_model(
            helper.make_graph(
                [*constants, *nodes],
                "part",
                [helper.make_tensor_value_info(start, onnx.TensorProto.FLOAT, shape)],
                [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None)],
                [tensor for tensor in model.graph.initializer if tensor.name in read],
            ),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )
        self._session = onnxruntime.InferenceSession(
            part.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        self._start, self._shape = start, shape

    def __call__(self, distances: np.ndarray) -> np.ndarray | None:
        """The result (B, 4, N) for distances (B, 4, N), or (4, N) for all images; None if it has another shape."""
        batch = np.broadcast_to(distances.astype(np.float32), self._shape)
        result = self._session.run(None, {self._start: np.ascontiguousarray(batch)})[0]
        return result.astype(np.float64) if list(result.shape) == self._shape else None


def _respell(model: ModelProto, graph: OnnxGraph, part: Distribution) -> bool:
    shape = _mean_shape(model, part.mean)
    if shape is None:
        return False
    nodes, end = affine_part(graph, part.mean)
    function = measure_affine(model, nodes, part.mean, end, shape)
    if function is None:
        nodes, end = [], part.mean
        function = measure_affine(model, nodes, part.mean, end, shape)
    assert function is not None  # the identity is
    removed = {name for node in (*part.nodes, *nodes) for name in node.output}
    kept = onnx.GraphProto()
    for node in model.graph.node:
        if end in node.output:
            kept.node.extend(_product(model, part, function, end))
        if not removed.intersection(node.output):
            kept.node.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept.node)
    remove_unread_constants(model)
    return True


def _product(model: ModelProto, part: Distribution, function: Affine, end: str) -> list[NodeProto]:
    """The nodes from the maps to the boxes."""
    before, _, softmax, mean, after = part.nodes
    count = part.values.size
    matrix = np.kron(function.matrix, part.values[None])  # (4, 4 K)
    constants = {
        "grouped": np.array([0, SIDES, count, -1]),
        "flat": np.array([0, SIDES * count, -1]),
        "matrix": matrix.astype(np.float32),
        "scale": np.broadcast_to(function.scale, (1, *function.offset.shape)).astype(np.float32),
        "offset": function.offset[None].astype(np.float32),
    }
    names = {key: f"{end}_{key}" for key in constants}
    model.graph.initializer.extend(numpy_helper.from_array(value, names[key]) for key, value in constants.items())
    scope = mean.name[: -len("Conv")] if mean.name.endswith("Conv") else f"{mean.name}/"
    steps = [f"{end}_{step}" for step in ("distribution", "share", "flat_share", "distance", "pixels")]
    return [
        helper.make_node("Reshape", [part.maps, names["grouped"]], [steps[0]], name=before.name),
        helper.make_node("Softmax", [steps[0]], [steps[1]], name=softmax.name, axis=2),
        helper.make_node("Reshape", [steps[1], names["flat"]], [steps[2]], name=after.name),
        helper.make_node("MatMul", [names["matrix"], steps[2]], [steps[3]], name=f"{scope}MatMul"),
        helper.make_node("Mul", [steps[3], names["scale"]], [steps[4]], name=f"{scope}Mul"),
        helper.make_node("Add", [steps[4], names["offset"]], [end], name=f"{scope}Add"),
    ]


def _mean_shape(model: ModelProto, tensor: str) -> list[int] | None:
    """The shape (B, 4, N) of a tensor, an open batch as 2; None if it is another one, or not known."""
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(model))
    except onnx.shape_inference.InferenceError:  # as of a graph whose shapes do not fit: it stays as it is
        return None
    found = [value.type.tensor_type.shape.dim for value in inferred.graph.value_info if value.name == tensor]
    shape = [dim.dim_value for dims in found for dim in dims]
    if len(shape) != 3 or shape[1] != SIDES or not shape[2]:
        return None
    return [shape[0] or 2, *shape[1:]]
