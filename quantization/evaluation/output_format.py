"""What a detector puts out, recognised by names and shapes, and how its outputs become boxes. No torch.

    rows           (B, N, 5 + C)  centre x, centre y, width, height, objectness, class scores: YOLOv5, YOLOv7
    columns        (B, 4 + C, N)  the same without objectness: YOLOv8, YOLO11
    final          (B, K, 6)      x1, y1, x2, y2, score, class: YOLOv10 and other networks without suppression
    efficient-nms  four outputs: number of detections (B, 1), boxes x1 y1 x2 y2 (B, K, 4), scores (B, K), classes (B, K),
                   as EfficientNMS_TRT gives them

Boxes are in pixels of the network's input. Rows and columns still need non-maximum suppression. A segmentation
network's boxes end in M mask coefficients, and a second output (B, M, h, w) holds the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Sequence, Tuple

import numpy as np

from quantization.errors import UserError
from quantization.evaluation.detections import Boxes
from quantization.options import OUTPUT_FORMATS

FINAL_ROWS = 300  # detections that networks without suppression give unless they were exported with another number
MOST_FINAL = 1000  # no network gives so many final detections
GRID_CELLS = (21, 85)  # cells of three and of four levels, each with half the stride of the next: their sums divide N
PARTS = ("num", "box", "score", "class")  # what the names of the four outputs hold: num_dets, det_boxes, ...
RANKS_OF_PARTS = ((1, 2), (3,), (2,), (2,))

Dimensions = Tuple["int | None", ...]


class Output(NamedTuple):
    """An output of a graph or engine.

    Attributes:
        name: of the tensor.
        shape: its dimensions; None where one is open.
    """

    name: str
    shape: Dimensions

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('?' if side is None else str(side) for side in self.shape)})"


@dataclass(frozen=True)
class OutputFormat:
    """How to read a detector's outputs.

    Attributes:
        kind: one of ``OUTPUT_FORMATS`` but "auto".
        places: which outputs hold the boxes; of "efficient-nms" number, boxes, scores and classes.
        classes: number of classes; None where the outputs do not tell it.
    """

    kind: str
    places: tuple[int, ...]
    classes: int | None

    def boxes(self, outputs: Sequence[np.ndarray]) -> Boxes:
        """The boxes of a batch.

        Args:
            outputs: all of them, in the network's order.

        Raises:
            UserError: final detections that are none: a class that is no whole number, or the corners swapped.
        """
        parts = [outputs[place] for place in self.places]
        if self.kind == "efficient-nms":
            return _counted(*parts)
        if self.kind == "final":
            return [_checked(rows.astype(np.float64)) for rows in parts[0]]
        return (parts[0] if self.kind == "rows" else _as_rows(parts[0]))[..., : 5 + int(self.classes or 0)]


def output_format(
    outputs: Sequence[Output], classes: int | None = None, asked: str = OUTPUT_FORMATS[0], source: str = "the network"
) -> OutputFormat:
    """Recognise a detector's outputs.

    Args:
        outputs: all of them, in the network's order.
        classes: number of classes where the file tells it; a number that does not fit the outputs is not believed.
        asked: what the user says they are: one of ``OUTPUT_FORMATS``.
        source: the file, for messages.

    Raises:
        UserError: they are unknown or could be of several formats, or are not what the user says.
    """
    found = _efficient_nms(outputs, asked) or _single(outputs, classes, asked)
    if len(found) == 1:
        return found[0]
    shown = f"{source} gives {', '.join(map(str, outputs))}"
    if asked != OUTPUT_FORMATS[0]:
        raise UserError(f"{shown}, which cannot be --output-format {asked}: leave it out, or give another one")
    if found:
        kinds = " or ".join(entry.kind for entry in found)
        raise UserError(f"{shown}, which may be {kinds}: say which by --output-format")
    raise UserError(
        f"{shown}, no detector's outputs that are known (rows (B, boxes, 5 + classes), columns (B, 4 + classes, boxes), "
        "final (B, K, 6), efficient-nms): export it with the export command"
    )


def _efficient_nms(outputs: Sequence[Output], asked: str) -> list[OutputFormat]:
    """The four outputs, found by their names; in the plugin's order where the user says what they are."""
    if len(outputs) != len(PARTS) or asked not in ("auto", "efficient-nms"):
        return []
    by_name = [[place for place, output in enumerate(outputs) if part in output.name.lower()] for part in PARTS]
    # "num_classes" or "class_scores" would be two parts at once
    named = all(len(places) == 1 for places in by_name) and len({places[0] for places in by_name}) == len(PARTS)
    if not named and asked == "auto":
        return []
    places = tuple(entry[0] for entry in by_name) if named else tuple(range(len(PARTS)))
    shapes = [outputs[place].shape for place in places]
    fits = all(len(shape) in ranks for shape, ranks in zip(shapes, RANKS_OF_PARTS)) and shapes[1][-1] in (4, None)
    return [OutputFormat("efficient-nms", places, None)] if fits else []


def _single(outputs: Sequence[Output], classes: int | None, asked: str) -> list[OutputFormat]:
    """What the one output of three dimensions may be."""
    boxes = [place for place, output in enumerate(outputs) if len(output.shape) == 3]
    if len(boxes) != 1:
        return []
    (place,) = boxes
    masks = next((output.shape[1] or 0 for output in outputs if len(output.shape) == 4), 0)
    _, first, last = outputs[place].shape
    # number of classes that the output would have as each kind; it is the file's own, or the file's is not believed
    counts = {"rows": (last or 0) - 5 - masks, "columns": (first or 0) - 4 - masks}
    counts = {kind: count for kind, count in counts.items() if count > 0 and asked in ("auto", kind)}
    exact = {kind: count for kind, count in counts.items() if count == classes}
    found = [OutputFormat(kind, (place,), count) for kind, count in (exact or counts).items()]
    final = [OutputFormat("final", (place,), classes)] if last == 6 and not masks and asked in ("auto", "final") else []
    if asked != "auto":
        return found + final
    if final:
        return _few_or_grid(first, OutputFormat("rows", (place,), 1), final[0])
    return found if exact else _longer_side(first, last, found, classes)


def _few_or_grid(first: int | None, rows: OutputFormat, final: OutputFormat) -> list[OutputFormat]:
    """Of (B, N, 6): final detections, or rows of a network with one class."""
    if final.classes not in (None, 1):
        return [final]
    # without suppression a network takes the best K, a constant; an open N is that of a grid of an open size
    if first is None or first > MOST_FINAL or any(first % cells == 0 for cells in GRID_CELLS):
        return [rows]
    return [final] if first == FINAL_ROWS else [rows, final]


def _longer_side(
    first: int | None, last: int | None, found: list[OutputFormat], classes: int | None
) -> list[OutputFormat]:
    """Of rows and columns: there are more boxes than numbers of a box; an open dimension is that of the boxes."""
    if first is not None and last is not None and first == last:
        return found
    kind = "rows" if last is not None and (first is None or first > last) else "columns"
    # columns of another length than the classes make it are those of keypoints or rotated boxes
    return [entry for entry in found if entry.kind == kind and (kind == "rows" or classes is None)]


def _as_rows(columns: np.ndarray) -> np.ndarray:
    """Columns (B, 4 + C, N) as rows (B, N, 5 + C). With one class its score may be taken from the objectness."""
    rows = columns.transpose(0, 2, 1)
    boxes, scores = rows[..., :4], rows[..., 4:]
    ones = np.ones_like(rows[..., :1])
    return np.concatenate((boxes, scores, ones) if scores.shape[-1] == 1 else (boxes, ones, scores), axis=-1)


def _counted(number: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    rows = np.concatenate([part.astype(np.float64) for part in (boxes, scores[..., None], labels[..., None])], axis=-1)
    return [_checked(image[:count]) for image, count in zip(rows, number.reshape(len(rows)).astype(int))]


def _checked(rows: np.ndarray) -> np.ndarray:
    """The detections of one image, best first; what has no score above 0 fills up the number."""
    rows = rows[rows[:, 4] > 0]
    wrong = (rows[:, 5] < 0) | (rows[:, 5] % 1 != 0) | (rows[:, 2:4] < rows[:, :2]).any(1) | (rows[:, 4] > 1.001)
    if wrong.any():
        numbers = ", ".join(f"{number:.4g}" for number in rows[wrong][0])
        raise UserError(
            f"the network gives the detection {numbers}, which is not x1, y1, x2, y2, score, class: say what its outputs "
            "are by --output-format"
        )
    return rows[np.argsort(-rows[:, 4], kind="stable")]
