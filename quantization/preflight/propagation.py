"""Propagation: where TensorRT puts conversions into a Q/DQ graph, predicted from the ONNX alone.

TensorRT's documented passes ("Working with Quantized Types", Q/DQ placement), checked against engines of 8.6:

    x --MaxPool-- y --Q--      =>   x --Q--MaxPool-- y       Q moves backward, DQ forward over what commutes
    Conv --SiLU--Q--           =>   [Conv SiLU Q]            a Q behind a quantized layer is part of its kernel ...
    Conv --SiLU--+--Q--        =>   [Conv] [SiLU] -+- [Q]    ... unless a reader wants float, or another scale:
                 +-- float                         +-- float     then the layer emits float, and each Q is a kernel
    DQ --+                          [DQ] --+
         +-- Add                           +-- [Add]         a DQ whose layer cannot run in INT8 is a kernel
    float+                          float--+
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from quantization.onnx_graph.commuting import FAMILIES
from quantization.onnx_graph.graph import attribute
from quantization.preflight.qdq_graph import CONVOLUTIONS, WEIGHTED, QdqGraph, Read, Scale
from quantization.union_find import UnionFind

# what the rules join, but for a Gather, whose index would have to be looked at
COMMUTING = set(FAMILIES) - {"Gather", "Identity"}
POOLING = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
POINTWISE = {
    "Abs",
    "Add",
    "Cast",
    "Celu",
    "Clip",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Where",
}
APART = {"Tanh"}  # what a float convolution does not take into its kernel (onnx_cleanup.respell_float_silu)


@dataclass(frozen=True)
class Conversion:
    """A kernel that TensorRT inserts.

    Attributes:
        kind: "quantize" (float to INT8), "dequantize" (INT8 to float) or "requantize" (INT8 to INT8).
        reason: "image", "two scales", "mixed readers", "float producer", "float reader", "half quantized", "sum" or
            "unequal scales".
        tensor: what is converted.
        scale: the scale after the conversion; before it, for "dequantize".
        readers: positions of the layers that read the result.
    """

    kind: str
    reason: str
    tensor: str
    scale: Scale | None
    readers: tuple[int, ...]


def commutes(node: NodeProto) -> bool:
    """Whether Q and DQ move over the node."""
    if node.op_type in ("Resize", "Upsample"):
        return attribute(node, "mode", "nearest") == "nearest"
    return node.op_type in COMMUTING


def tensor_classes(graph: QdqGraph) -> dict[str, str]:
    """Tensor to a name for its class: the tensors joined by operations that commute, which want one scale."""
    classes = UnionFind()
    for position, node in enumerate(graph.nodes):
        if commutes(node):
            for name in [*(read.tensor for read in graph.reads[position]), *node.output]:
                classes.join(name, node.output[0])
    return {name: classes.find(name) for name in list(classes.parent)}


class Propagation:
    """The prediction for one graph.

    Attributes:
        demands: for every read, the scale that it wants of its tensor; None: float.
        state: tensor to the scale in which it is stored; None: float.
        quantized: positions of the convolutions and matrix products that run in INT8.
        conversions: in the order of the graph.
    """

    def __init__(self, graph: QdqGraph) -> None:
        self.graph = graph
        self.demands: dict[Read, Scale | None] = {}
        self.state: dict[str, Scale | None] = {}
        self.quantized: set[int] = set()
        self._int8_pointwise: set[int] = set()
        self.conversions: list[Conversion] = []
        self._move_quantize_backward()
        self._run_forward()

    def wanted(self, tensor: str) -> set[Scale | None]:
        """The scales that the readers of a tensor want of it, None among them if one wants float."""
        return {self.demands[read] for read in self.graph.readers.get(tensor, [])}

    def end_readers(self, tensor: str, scale: Scale | None) -> list[int]:
        """The layers that want ``scale`` of ``tensor`` (None: float), behind operations that commute.

        An operation that commutes is itself the reader where those behind it do not agree; -1 is a graph output.
        """
        found: dict[int, None] = {}
        for read in self.graph.readers.get(tensor, []):
            if self.demands[read] != scale:
                continue
            outputs = self.graph.nodes[read.node].output if read.node >= 0 else []
            if (
                not read.pairs
                and outputs
                and commutes(self.graph.nodes[read.node])
                and all(self.wanted(name) <= {scale} for name in outputs)
            ):
                found.update(dict.fromkeys(end for name in outputs for end in self.end_readers(name, scale)))
            else:
                found[read.node] = None
        return list(found)

    # --- backward: what each reader wants -----------------------------------------------------------------------------

    def _move_quantize_backward(self) -> None:
        for read in self.graph.outputs:
            self.demands[read] = read.pairs[0].key if read.pairs else None
        for position in range(len(self.graph.nodes) - 1, -1, -1):
            node = self.graph.nodes[position]
            behind = self._unanimous(node) if commutes(node) else None
            for read in self.graph.reads[position]:
                self.demands[read] = read.pairs[0].key if read.pairs else behind

    def _unanimous(self, node: NodeProto) -> Scale | None:
        wanted: set[Scale | None] = set()
        for name in node.output:
            wanted |= self.wanted(name)
        return wanted.pop() if len(wanted) == 1 else None

    # --- forward: what each layer emits, and what must be converted ---------------------------------------------------

    def _run_forward(self) -> None:
        for name in self.graph.inputs:
            self._emit(name, -1, False)
        for position, node in enumerate(self.graph.nodes):
            for read in self.graph.reads[position]:
                self._requantize_pairs(read)
            if commutes(node):
                self._move_dequantize_forward(position, node)
            else:
                emits = self._run_layer(position, node)
                for name in node.output:
                    self._emit(name, position, emits)
        for read in self.graph.outputs:
            self._requantize_pairs(read)
            if self.form(read) is not None:
                self._insert("dequantize", "float reader", read.tensor, self.form(read), (-1,))

    def form(self, read: Read) -> Scale | None:
        """The scale in which a layer gets an input, behind all conversions but DQ kernels; None: float."""
        if read.pairs:
            return read.pairs[-1].key
        state = self.state[read.tensor]
        return self.demands[read] if state is None else state

    def _insert(self, kind: str, reason: str, tensor: str, scale: Scale | None, readers: tuple[int, ...]) -> None:
        self.conversions.append(Conversion(kind, reason, tensor, scale, readers))

    def _requantize_pairs(self, read: Read) -> None:
        keys = [self.state[read.tensor], *(pair.key for pair in read.pairs)]
        for before, after in zip(keys, keys[1:]):
            known = any(
                item.kind == "requantize" and item.tensor == read.tensor and item.scale == after
                for item in self.conversions
            )
            if before is not None and before != after and not known:
                self._insert("requantize", "unequal scales", read.tensor, after, (read.node,))

    def _move_dequantize_forward(self, position: int, node: NodeProto) -> None:
        reads, scale = self.graph.reads[position], self._unanimous(node)
        forms = {self.form(read) for read in reads}
        if len(forms) == 1:
            scale = forms.pop()
        else:
            for read in reads:
                if self.form(read) not in (None, scale):
                    kind, reason = (
                        ("requantize", "unequal scales") if scale is not None else ("dequantize", "float reader")
                    )
                    self._insert(
                        kind, reason, read.tensor, scale if scale is not None else self.form(read), (position,)
                    )
        for name in node.output:
            self.state[name] = scale
            if scale is None:
                self._emit(name, position, False)

    def _run_layer(self, position: int, node: NodeProto) -> bool:
        """Convert what the layer cannot read; returns whether it can emit INT8."""
        reads, weight = self.graph.reads[position], self.graph.weight(position)
        int8 = [read for read in reads if self.form(read) is not None]
        if node.op_type in WEIGHTED:
            factors = [read for read in reads if read.index < 2]
            if all(read in int8 for read in factors) and (weight is None or weight.pairs):
                self.quantized.add(position)
                return True
            reason = "half quantized" if weight is None or not weight.pairs else "float reader"
        elif node.op_type in POINTWISE:
            if all(read in int8 or self.graph.producer.get(read.tensor) in self._int8_pointwise for read in reads):
                self._int8_pointwise.add(position)  # with all pointwise layers before it, one kernel on INT8 inputs
                return True
            if self._is_fused_sum(node, reads):
                return True
            reason = "sum" if node.op_type == "Add" else "float reader"
        elif node.op_type in POOLING and len(int8) == len(reads):
            return True
        else:
            reason = "float reader"
        for read in int8:
            self._insert("dequantize", reason, read.tensor, self.form(read), (position,))
        return node.op_type in POINTWISE and not self._only_follows_float_layer(position)

    def _is_fused_sum(self, node: NodeProto, reads: list[Read]) -> bool:
        """Conv + DQ(shortcut): the sum is part of the convolution's kernel if nothing comes between them."""
        if node.op_type != "Add" or len(reads) != 2:
            return False
        branches = [read for read in reads if self.form(read) is None]
        if len(branches) != 1 or branches[0].tensor not in self.graph.producer:
            return False
        maker = self.graph.producer[branches[0].tensor]
        return (
            maker in self.quantized
            and self.graph.nodes[maker].op_type in CONVOLUTIONS
            and len(self.graph.readers[branches[0].tensor]) == 1
        )

    def _only_follows_float_layer(self, position: int) -> bool:
        """Whether a pointwise layer is just the activation of one float layer, whose kernel it becomes part of."""
        sources: set[int] = set()
        pending, seen = [position], {position}
        while pending:
            for read in self.graph.reads[pending.pop()]:
                maker = self.graph.producer.get(read.tensor, -1)
                if maker >= 0 and not read.pairs and self.graph.nodes[maker].op_type in POINTWISE:
                    if maker not in seen:
                        seen.add(maker)
                        pending.append(maker)
                else:
                    sources.add(-1 if self.form(read) is not None or maker in self.quantized else maker)
        apart = any(self.graph.nodes[one].op_type in APART for one in seen)
        return len(sources) == 1 and -1 not in sources and not apart

    def _emit(self, tensor: str, position: int, emits_int8: bool) -> None:
        """Settle how a layer's output is stored, and which Q behind it are kernels of their own."""
        wanted = self.wanted(tensor)
        scales = [
            scale
            for scale in dict.fromkeys(self.demands[read] for read in self.graph.readers.get(tensor, []))
            if scale is not None
        ]
        self.state[tensor] = scales[0] if len(scales) == 1 and None not in wanted else None
        if self.state[tensor] is not None and emits_int8:
            return
        reason = (
            "two scales"
            if len(scales) > 1
            else "mixed readers"
            if None in wanted
            else "image"
            if position < 0
            else "float producer"
        )
        for scale in scales:
            self._insert("quantize", reason, tensor, scale, tuple(self.end_readers(tensor, scale)))
