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

from quantization.preflight.operators import APART, CONVOLUTIONS, POINTWISE, POOLING, WEIGHTED
from quantization.preflight.qdq_graph import QdqGraph, Read, Scale

_SEVERAL = -1  # in place of a layer's position: several layers, the image or an INT8 layer


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
        self.state: dict[str, Scale | None] = {}  # without constants and what follows from them alone: float
        self.quantized: set[int] = set()
        self._wishes: dict[str, dict[Scale | None, list[Read]]] = {}
        self._int8_pointwise: set[int] = set()
        self._float_origins: dict[int, tuple[frozenset[int], bool]] = {}
        self._requantized: set[tuple[str, Scale]] = set()
        self.conversions: list[Conversion] = []
        self._move_quantize_backward()
        self._run_forward()

    def wanted(self, tensor: str) -> set[Scale | None]:
        """The scales that the readers of a tensor want of it, None among them if one wants float."""
        return set(self._reads_by_wish(tensor))

    def _reads_by_wish(self, tensor: str) -> dict[Scale | None, list[Read]]:
        """The reads of a tensor by the scale that they want of it; grouped at the first call."""
        if tensor not in self._wishes:
            wishes: dict[Scale | None, list[Read]] = {}
            for read in self.graph.readers.get(tensor, []):
                wishes.setdefault(self.demands[read], []).append(read)
            self._wishes[tensor] = wishes
        return self._wishes[tensor]

    def end_readers(self, tensor: str, scale: Scale | None) -> list[int]:
        """The layers that want ``scale`` of ``tensor`` (None: float), behind operations that commute.

        An operation that commutes is itself the reader where those behind it do not agree; -1 is a graph output.
        """
        found: dict[int, None] = {}
        seen = {tensor}
        pending = list(reversed(self._reads_by_wish(tensor).get(scale, [])))
        while pending:
            read = pending.pop()
            if not self._passes_on(read, scale):
                found[read.node] = None
                continue
            outputs = [name for name in self.graph.nodes[read.node].output if name not in seen]
            seen.update(outputs)
            pending += reversed([after for name in outputs for after in self._reads_by_wish(name).get(scale, [])])
        return list(found)

    def _passes_on(self, read: Read, scale: Scale | None) -> bool:
        """Whether an operation only hands the tensor on, in ``scale``, to those behind it."""
        if read.pairs or read.node < 0 or not self.graph.commutes[read.node]:
            return False
        return all(self.wanted(name) <= {scale} for name in self.graph.nodes[read.node].output)

    # --- backward: what each reader wants -----------------------------------------------------------------------------

    def _move_quantize_backward(self) -> None:
        for read in self.graph.outputs:
            self.demands[read] = read.pairs[0].key if read.pairs else None
        for position in range(len(self.graph.nodes) - 1, -1, -1):
            node = self.graph.nodes[position]
            behind = self._unanimous(node) if self.graph.commutes[position] else None
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
            if self.graph.commutes[position]:
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
        state = self.state.get(read.tensor)
        return self.demands[read] if state is None else state

    def _insert(self, kind: str, reason: str, tensor: str, scale: Scale | None, readers: tuple[int, ...]) -> None:
        self.conversions.append(Conversion(kind, reason, tensor, scale, readers))
        if kind == "requantize" and scale is not None:
            self._requantized.add((tensor, scale))

    def _requantize_pairs(self, read: Read) -> None:
        keys = [self.state.get(read.tensor), *(pair.key for pair in read.pairs)]
        for before, after in zip(keys, keys[1:]):
            if before is not None and before != after and (read.tensor, after) not in self._requantized:
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
        int8 = dict.fromkeys(read for read in reads if self.form(read) is not None)
        if node.op_type in WEIGHTED:
            factors = [read for read in reads if read.index < 2]
            if all(read in int8 for read in factors) and (weight is None or weight.pairs):
                self.quantized.add(position)
                return True
            reason = "half quantized" if weight is None or not weight.pairs else "float reader"
        elif node.op_type in POINTWISE:
            self._find_float_origin(position, node)
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

    def _find_float_origin(self, position: int, node: NodeProto) -> None:
        """Which float layer feeds a pointwise layer, through pointwise layers, and whether one of them is in APART."""
        sources: set[int] = set()
        apart = node.op_type in APART
        for read in self.graph.reads[position]:
            maker = self.graph.producer.get(read.tensor, -1)
            if maker >= 0 and not read.pairs and self.graph.nodes[maker].op_type in POINTWISE:
                origin, is_apart = self._float_origins[maker]
                sources |= origin
                apart = apart or is_apart
            else:
                sources.add(_SEVERAL if self.form(read) is not None or maker in self.quantized else maker)
        self._float_origins[position] = frozenset(sources if len(sources) < 2 else {_SEVERAL}), apart

    def _only_follows_float_layer(self, position: int) -> bool:
        """Whether a pointwise layer is just the activation of one float layer, whose kernel it becomes part of."""
        sources, apart = self._float_origins[position]
        return len(sources) == 1 and _SEVERAL not in sources and not apart

    def _emit(self, tensor: str, position: int, emits_int8: bool) -> None:
        """Settle how a layer's output is stored, and which Q behind it are kernels of their own."""
        wanted = list(self._reads_by_wish(tensor))
        scales = [scale for scale in wanted if scale is not None]
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
