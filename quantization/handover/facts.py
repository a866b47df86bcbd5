"""What a runtime asks of an exported network: its tensors, batch and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import onnx

SUPPRESSED = ("num_dets", "det_boxes", "det_scores", "det_classes")  # the outputs of export --end2end


@dataclass(frozen=True)
class TensorFacts:
    """An input or output.

    Attributes:
        name: of the tensor.
        kind: element type, as ONNX calls it: FLOAT, FLOAT16, INT32 ...
        shape: without the batch.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class NetworkFacts:
    """An exported network.

    Attributes:
        input: the images.
        outputs: all outputs, in their order.
        batch: images per batch; None: it is open.
        names: of the classes.
        objectness_only: with one class, the objectness is the score (YOLOv7).
    """

    input: TensorFacts
    outputs: Sequence[TensorFacts]
    batch: int | None
    names: Sequence[str]
    objectness_only: bool = False

    @property
    def is_suppressed(self) -> bool:
        """Whether the outputs are final detections, from non-maximum suppression in the graph."""
        return tuple(output.name for output in self.outputs) == SUPPRESSED


def network_facts(graph: onnx.ModelProto, names: Sequence[str], objectness_only: bool) -> NetworkFacts:
    """The facts of an ONNX of the export command.

    Args:
        graph: the ONNX; its height and width are fixed.
        names: of the classes.
        objectness_only: of a network of one class.
    """
    (images,) = graph.graph.input
    first = images.type.tensor_type.shape.dim[0]
    outputs = [_tensor(output) for output in graph.graph.output]
    batch = first.dim_value if first.HasField("dim_value") else None
    return NetworkFacts(_tensor(images), outputs, batch, names, objectness_only and len(names) == 1)


def _tensor(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim[1:])
    return TensorFacts(value.name, onnx.TensorProto.DataType.Name(kind.elem_type), shape)
