"""Non-maximum suppression as the last part of an ONNX, in two forms with the same four outputs. No torch.

    outputs (B, N, 5 + C)  ->  num_dets (B, 1) int32   det_boxes (B, K, 4) x1 y1 x2 y2, pixels
                               det_scores (B, K)       det_classes (B, K) int32

``trt`` is TensorRT's plugin EfficientNMS_TRT with the attributes of YOLOv7's own export; ``onnx`` is made of operators of
the standard, which ONNX Runtime and TensorRT from 8.5 on run. What either finds comes first, best first; the rest is 0.

Both take every class of a box whose score is above the threshold (upstream's multi_label) and suppress within a class.
The plugin also drops boxes whose overlap equals the threshold, keeps scores that equal theirs, and looks at the best 4096
candidates of an image only; TensorRT's layer for the standard operator looks at the best 5000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantization.errors import UserError
from quantization.evaluation.onnx_predictor import PLUGIN

PLUGIN_DOMAIN = "TRT"  # as torch writes TRT::EfficientNMS_TRT; TensorRT finds plugins by their name alone
SCOPE = "/end2end"  # of the nodes' names


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression to append.

    Attributes:
        form: "trt" or "onnx".
        keep: K, detections of an image at most.
        iou: overlap above which the weaker box of a class is dropped.
        confidence: score above which a box counts.
        names: of the classes, for the file's metadata; their number is that of the classes.
        objectness_only: with one class, the objectness is the score (YOLOv7).
    """

    form: str
    keep: int
    iou: float
    confidence: float
    names: tuple[str, ...]
    objectness_only: bool = False


def refuse_other_outputs(outputs: Mapping[str, Sequence[int | str]], classes: int) -> None:
    """Raises a UserError if outputs, of these names and shapes, are not the rows that suppression takes."""
    numbers = 5 + classes
    if [list(shape[2:]) for shape in outputs.values()] != [[numbers]]:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
        raise UserError(
            f"--end2end takes one output (B, boxes, {numbers}), this network has {shown}: leave it out (masks of a "
            "segmentation network are made behind the suppression)"
        )


def append_suppression(model: onnx.ModelProto, suppression: Suppression) -> None:
    """Put non-maximum suppression behind the rows that a graph gives, in place.

    Args:
        model: its only output is FP32 rows (B, N, 5 + C); opset 13 or newer.
        suppression: what to append. C is the number of its names.

    Raises:
        UserError: the graph has other outputs.
    """
    graph = model.graph
    refuse_other_outputs({output.name: _shape(output) for output in graph.output}, len(suppression.names))
    (rows,) = graph.output
    batch = _shape(rows)[0]
    part = _Part(model)
    part.split(rows.name, suppression)
    if suppression.form == "trt":
        part.plugin(suppression)
        model.opset_import.append(helper.make_opsetid(PLUGIN_DOMAIN, 1))
    else:
        part.select(suppression)
        part.rank(suppression.keep, batch)
        part.fill()
    graph.value_info.append(rows)
    del graph.output[:]
    sides = {"num_dets": [1], "det_boxes": [suppression.keep, 4]}
    for name in ("num_dets", "det_boxes", "det_scores", "det_classes"):
        kind = TensorProto.FLOAT if name in ("det_boxes", "det_scores") else TensorProto.INT32
        shape = [batch, *sides.get(name, [suppression.keep])]
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    # as upstream's export.py writes it: the outputs no longer tell the number of classes
    model.metadata_props.add(key="names", value=str(dict(enumerate(suppression.names))))


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Dimensions, named where they are open."""
    return [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]


class _Part:
    """The nodes that are appended; each method adds some, and tensors have the same names in all of them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph

    def split(self, rows: str, suppression: Suppression) -> None:
        """``boxes`` (B, N, 4), centre and size, and ``scores`` (B, N, C)."""
        numbers = 5 + len(suppression.names)
        for name, start, end in (("boxes", 0, 4), ("objectness", 4, 5), ("probabilities", 5, numbers)):
            limits = [self._constant(f"{name}_{key}", [value]) for key, value in (("start", start), ("end", end))]
            self._add("Slice", [rows, *limits, self._constant("last", [2])], name)
        if numbers == 6 and suppression.objectness_only:
            self._add("Identity", ["objectness"], "scores")
        else:
            self._add("Mul", ["objectness", "probabilities"], "scores")

    def plugin(self, suppression: Suppression) -> None:
        """The four outputs by the plugin."""
        node = self._add(PLUGIN, ["boxes", "scores"], "num_dets", "det_boxes", "det_scores", "det_classes")
        node.domain = PLUGIN_DOMAIN
        attributes = {
            "background_class": -1,  # none
            "box_coding": 1,  # centre and size; the plugin gives corners in any case
            "iou_threshold": suppression.iou,
            "max_output_boxes": suppression.keep,
            "plugin_version": "1",
            "score_activation": 0,  # the scores have been through their sigmoid
            "score_threshold": suppression.confidence,
        }
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())

    def select(self, suppression: Suppression) -> None:
        """What stays in all images, S of them and K empty places: ``image``, ``class``, ``score`` (S + K), ``box``."""
        keep = suppression.keep
        self._add("Transpose", ["scores"], "class_scores", perm=[0, 2, 1])
        limits = [
            self._constant("most", np.int64(keep)),  # of a class: more of it cannot be among the best of the image
            self._constant("iou", np.float32(suppression.iou)),
            self._constant("confidence", np.float32(suppression.confidence)),
        ]
        self._add("NonMaxSuppression", ["boxes", "class_scores", *limits], "selected", center_point_box=1)
        for name, columns in (("image", 0), ("class", 1), ("image_and_box", [0, 2])):
            index = self._constant(f"{name}_columns", np.array(columns, np.int64))
            self._add("Gather", ["selected", index], f"selected_{name}", axis=1)
        self._add("GatherND", ["class_scores", "selected"], "selected_score")
        self._add("GatherND", ["boxes", "selected_image_and_box"], "selected_box")
        empty = {
            "image": np.full(keep, -1, np.int64),
            "class": np.zeros(keep, np.int64),
            "score": np.zeros(keep, np.float32),
            "box": np.zeros((keep, 4), np.float32),
        }
        for name, values in empty.items():
            self._add("Concat", [f"selected_{name}", self._constant(f"empty_{name}", values)], name, axis=0)

    def rank(self, keep: int, batch: int | str) -> None:
        """``best`` (B, K) scores, those of an image's own boxes first, and ``place``, which boxes they are of."""
        if isinstance(batch, int):
            self._constant("images", np.arange(batch, dtype=np.int64).reshape(-1, 1))
        else:
            self._add("Shape", ["boxes"], "shape")
            self._add("Gather", ["shape", self._constant("first", np.int64(0))], "batch", axis=0)
            limits = [self._constant(name, np.int64(value)) for name, value in (("zero", 0), ("one", 1))]
            self._add("Range", [limits[0], "batch", limits[1]], "numbers")
            self._add("Unsqueeze", ["numbers", self._constant("axis1", [1])], "images")
        self._add("Equal", ["image", "images"], "own")  # (B, S + K)
        self._add("Where", ["own", "score", self._constant("nothing", np.float32(0))], "own_score")
        self._add("TopK", ["own_score", self._constant("keep", [keep])], "det_scores", "place", axis=1)

    def fill(self) -> None:
        """The four outputs, 0 where an image has fewer detections than places."""
        nothing = self._constant("nothing", np.float32(0))
        self._add("Greater", ["det_scores", nothing], "real")
        self._add("Cast", ["real"], "real_number", to=TensorProto.FLOAT)
        self._add("ReduceSum", ["real_number", self._constant("axis1", [1])], "count", keepdims=1)
        self._add("Cast", ["count"], "num_dets", to=TensorProto.INT32)
        self._add("Gather", ["class", "place"], "classes", axis=0)
        self._add("Where", ["real", "classes", self._constant("class0", np.int64(0))], "real_classes")
        self._add("Cast", ["real_classes"], "det_classes", to=TensorProto.INT32)
        self._add("Gather", ["box", "place"], "best_boxes", axis=0)  # (B, K, 4)
        for name, start, end in (("centre", 0, 2), ("size", 2, 4)):
            limits = [self._constant(f"{name}_{key}", [value]) for key, value in (("start", start), ("end", end))]
            self._add("Slice", ["best_boxes", *limits, self._constant("last", [2])], name)
        self._add("Mul", ["size", self._constant("half", np.float32(0.5))], "half_size")
        self._add("Sub", ["centre", "half_size"], "low")
        self._add("Add", ["centre", "half_size"], "high")
        self._add("Concat", ["low", "high"], "corners", axis=2)
        self._add("Unsqueeze", ["real", self._constant("last", [2])], "real_box")
        self._add("Where", ["real_box", "corners", nothing], "det_boxes")

    def _constant(self, name: str, value: Any) -> str:
        """The name of an initializer; lists become int64."""
        full = self._tensor(name)
        if full not in (tensor.name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> NodeProto:
        names = [self._tensor(name) for name in inputs], [self._tensor(name) for name in outputs]
        node = helper.make_node(operator, *names, name=f"{SCOPE}/{outputs[0]}/{operator}", **attributes)
        self._graph.node.append(node)
        return self._graph.node[-1]

    def _tensor(self, name: str) -> str:
        """The graph's own tensors and the outputs keep their names."""
        own = name.startswith((SCOPE, "det_", "num_dets"))
        return name if own or name == self._graph.output[0].name else f"{SCOPE}/{name}"
