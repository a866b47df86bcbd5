"""Which upstream an ONNX was exported from, in its metadata: what evaluates it then decides as that one does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Mapping, NamedTuple

if TYPE_CHECKING:
    import onnx

UPSTREAM, IOU = "upstream", "nms_iou"  # keys of the metadata
UPSTREAM_NAMES = ("yolov5", "yolov7")
SCORES_BY_OBJECTNESS = "yolov7"  # networks of one class


class Origin(NamedTuple):
    """The upstream of a network.

    Attributes:
        upstream: "yolov5" or "yolov7".
        iou: its own threshold of non-maximum suppression in evaluation.
    """

    upstream: str
    iou: float

    @property
    def objectness_only(self) -> bool:
        """Whether it takes the objectness for the score of a network of one class."""
        return self.upstream == SCORES_BY_OBJECTNESS

    def metadata(self) -> dict[str, str]:
        """As an ONNX, or the record beside a plan, holds it."""
        return {UPSTREAM: self.upstream, IOU: f"{self.iou:g}"}


def write_origin(model: onnx.ModelProto, origin: Origin) -> None:
    """Add it to the metadata of an ONNX, in place."""
    for key, value in origin.metadata().items():
        model.metadata_props.add(key=key, value=value)


def read_origin(metadata: Mapping[str, object]) -> Origin | None:
    """From the metadata of an ONNX; None: another exporter's has none."""
    try:
        iou = float(str(metadata[IOU]))
        upstream = str(metadata[UPSTREAM])
    except (KeyError, ValueError):
        return None
    known = upstream in UPSTREAM_NAMES and math.isfinite(iou) and 0 <= iou <= 1
    return Origin(upstream, iou) if known else None


def file_origin(file: str) -> Origin | None:
    """From an ONNX file; None: it does not tell, is none, or the package onnx is missing."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx depends on it; no stubs
    except ImportError:  # a machine that only builds and times
        return None
    try:
        model = onnx.load(file, load_external_data=False)
    except (OSError, DecodeError, ValueError):  # whoever uses the file says what is wrong with it
        return None
    return read_origin({entry.key: entry.value for entry in model.metadata_props})
