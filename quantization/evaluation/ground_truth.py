"""The annotations of the validation images, from a COCO JSON or YOLO label files, checked before any work."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Mapping, Sequence

import numpy as np

from quantization.data.dataset import Dataset
from quantization.data.images import image_shape
from quantization.data.labels import any_labels, label_file, parse_labels, read_labels
from quantization.errors import UserError
from quantization.evaluation.categories import class_map, first_moved, is_single_class
from quantization.evaluation.coco_json import CocoJson, Image, read_coco
from quantization.evaluation.path_match import match_files

LOG = logging.getLogger("quantization")
ANY_CLASS = 2**31  # read_labels then takes every class number
SLACK = 2.0  # pixels that a box may leave its image by
MERGED = "The model has one class: all classes of %s are merged into it, as upstream's --single-cls does"
LEFT_OUT = "WARNING: %d annotations of %s %s and are left out"
MOST_OUTSIDE = 0.1  # share of the boxes


@dataclass(frozen=True)
class TrueBoxes:
    """The annotated boxes of a data set.

    Attributes:
        image: (N,) int64, index into ``GroundTruth.files``.
        boxes: (N, 4) float64, x1, y1, x2, y2 in pixels of the image.
        labels: (N,) int64, class.
        crowd: (N,) bool, boxes in which detections count neither way.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


class GroundTruth:
    """The annotations of the validation images; once made, nothing in them can fail any more.

    A file that the data set lists several times counts once. Classes are renumbered as the model has them.

    Args:
        dataset: its annotation JSON is read, or its YOLO label files where it has none or one that does not fit.
        classes: number of classes of the model.
        class_names: the model's names of its classes, where it knows them.

    Attributes:
        files: the images, each once; where label files stand in for a JSON, without those whose labels are damaged.
        names: of the classes.
        uses_labels: whether the boxes come from label files: there is no JSON, or it does not fit.

    Raises:
        UserError: the annotations are damaged, do not fit the images or the model, or there is not one box.
    """

    def __init__(self, dataset: Dataset, classes: int, class_names: Sequence[str] | None = None) -> None:
        self.files = list({os.path.abspath(file): file for file in reversed(dataset.val)}.values())[::-1]
        model_names = [str(name) for name in class_names or []]
        _check_names(dataset, classes, model_names)
        known = [names for names in (model_names, dataset.names) if len(names) == classes]
        self.uses_labels = dataset.annotations is None
        self._boxes, self.names = self._read(dataset, classes, known)
        self._index = {os.path.abspath(file): index for index, file in enumerate(self.files)}

    def arrays(self) -> TrueBoxes:
        """All boxes, ordered by image."""
        return self._boxes

    def image_index(self, file: str) -> int:
        """The place of an image in ``files``."""
        return self._index[os.path.abspath(file)]

    def _read(self, dataset: Dataset, classes: int, known: Sequence[Sequence[str]]) -> tuple[TrueBoxes, list[str]]:
        names = list(known[-1] if known else map(str, range(classes)))
        if dataset.annotations is None:
            return boxes_of_labels(self.files, classes, dataset), names
        categories = 0
        try:
            content = read_coco(dataset.annotations)
            categories = len(content.categories)
            return boxes_of_json(content, self.files, classes, known)
        except UserError as error:
            if not any_labels(self.files):
                raise
            self.files = [file for file in self.files if not parse_labels(label_file(file)).corrupt] or self.files
            boxes = boxes_of_labels(self.files, classes, dataset)
            if not dataset.names and boxes.labels.max() < categories < classes:
                raise  # the labels have no class that the JSON lacks: more likely it is the model that does not fit
            LOG.warning("WARNING: %s. The label files are used instead.", error)
            self.uses_labels = True
        return boxes, names


def _check_names(dataset: Dataset, classes: int, model_names: Sequence[str]) -> None:
    """Raises a UserError if data.yaml names another number of classes, or the model's classes in another order."""
    names = dataset.names
    if names and len(names) != classes and not is_single_class(classes, model_names):
        raise UserError(
            f"{dataset.source} has {len(names)} classes, the model has {classes}: "
            "use the data that the model was trained on"
        )
    number = first_moved(model_names, names)
    if number is not None:
        raise UserError(
            f"{dataset.source} names the classes in another order than the model: class {number} is "
            f"{names[number]} there and {model_names[number]} in the model"
        )


def _stacked(rows: Sequence[Sequence[float]], source: str) -> TrueBoxes:
    """Boxes from rows of image, x1, y1, x2, y2, class, crowd; a UserError if there are none, or crowds alone."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    crowd = table[:, 6].astype(bool)
    if crowd.all():
        raise UserError(
            f"{source}: the validation images have no box at all, so their mAP is undefined: "
            "name a data set with objects in it"
        )
    return TrueBoxes(table[:, 0].astype(np.int64), table[:, 1:5].copy(), table[:, 5].astype(np.int64), crowd)


# --- label files ------------------------------------------------------------------------------------------------------


def boxes_of_labels(files: Sequence[str], classes: int, dataset: Dataset) -> TrueBoxes:
    """Read YOLO label files.

    Args:
        files: the images.
        classes: number of classes of the model.
        dataset: whose images these are.

    Raises:
        UserError: there is no label file, or one is damaged.
    """
    lacking = [file for file in files if not label_file(file).is_file()]
    if len(lacking) == len(files):
        raise UserError(
            f"{dataset.source}: no validation image has annotations; {label_file(files[0])} and "
            f"{len(files) - 1} more label files were looked for (images/ in the path becomes labels/)"
        )
    if lacking:
        LOG.info(
            "%d of %d validation images have no label file and count as images without objects, the first is %s",
            len(lacking),
            len(files),
            label_file(lacking[0]),
        )
    merge = classes == 1 and len(dataset.names) != 1  # a model of --single-cls
    rows: list[list[float]] = []
    for index, file in enumerate(files):
        labels = read_labels(label_file(file), ANY_CLASS if merge else classes)
        if not len(labels):
            continue
        height, width = image_shape(file)
        half = labels[:, 3:5] / 2
        corners = np.concatenate((labels[:, 1:3] - half, labels[:, 1:3] + half), 1) * [width, height, width, height]
        for label, corner in zip(labels[:, 0], corners.tolist()):
            rows.append([index, *corner, label, 0])
    boxes = _stacked(rows, dataset.source)
    if merge and boxes.labels.any():
        LOG.info(MERGED, dataset.source)
        boxes.labels[:] = 0
    return boxes


# --- JSON -------------------------------------------------------------------------------------------------------------


def boxes_of_json(
    content: CocoJson, files: Sequence[str], classes: int, known: Sequence[Sequence[str]]
) -> tuple[TrueBoxes, list[str]]:
    """Join a JSON's annotations to images and classes.

    Args:
        content: the JSON.
        files: the images; others that the JSON lists are left out.
        classes: number of classes of the model.
        known: what the classes are called, see ``class_map``.

    Returns:
        The boxes and the names of the classes.

    Raises:
        UserError: it does not fit the images or the model, or an annotation is damaged.
    """
    source = str(content.file)
    entries = [
        content.images[number] for number in match_files(files, [image.name for image in content.images], source)
    ]
    found = [list(content.boxes(entry.key)) for entry in entries]
    used = {box.category for part in found for box in part}
    numbers = class_map(content.categories, used, classes, known, source)
    rows: list[list[float]] = []
    empty = 0
    unique = [list(dict.fromkeys(part)) for part in found]
    for index, part in enumerate(unique):
        for box in part:
            left, top, width, height = box.box
            if width > 0 and height > 0:
                rows.append([index, left, top, left + width, top + height, numbers[box.category], box.crowd])
            else:
                empty += 1
    boxes = _stacked(rows, source)
    _check_extent(boxes, entries, files, source)
    repeated = sum(map(len, found)) - sum(map(len, unique))
    _warn_left_out(source, repeated, empty, content.strays)
    return boxes, _class_names(content, numbers, classes, known)


def _warn_left_out(source: str, *counts: int) -> None:
    """Say what is left out, so many of each kind."""
    # a copy would count as an object that is never found; upstream removes repeated label rows too
    reasons = ("repeat others", "have a width or height of 0", "belong to images that it does not list")
    for count, reason in zip(counts, reasons):
        if count:
            LOG.warning(LEFT_OUT, count, source, reason)


def _class_names(
    content: CocoJson, numbers: Mapping[str, int], classes: int, known: Sequence[Sequence[str]]
) -> list[str]:
    """Names by class number, as the JSON spells them where it has them."""
    names = list(known[0]) if known else [str(number) for number in range(classes)]
    if len(set(numbers.values())) < len(numbers):
        LOG.info(MERGED, content.file)
        return names
    for category in content.categories:
        if category.key in numbers:
            names[numbers[category.key]] = category.name
    return names


def _check_extent(boxes: TrueBoxes, entries: Sequence[Image], files: Sequence[str], source: str) -> None:
    """Raises a UserError if the boxes were drawn in images of another size, or are not x, y, width, height in pixels."""
    shapes = np.array([image_shape(file) for file in files])
    right_bottom = shapes[boxes.image][:, ::-1]  # width and height
    outside = (boxes.boxes < -SLACK).any(1) | (boxes.boxes[:, 2:] > right_bottom + SLACK).any(1)
    swapped = 0
    for index, (entry, file) in enumerate(zip(entries, files)):
        shape = (int(shapes[index][0]), int(shapes[index][1]))
        if entry.size is None or entry.size == shape:
            continue
        if entry.size != shape[::-1] or outside[boxes.image == index].any():
            raise UserError(
                f"{source} says that {entry.name} has {entry.size[1]} x {entry.size[0]} pixels, {file} has "
                f"{shape[1]} x {shape[0]}: the annotations were made for another image"
            )
        swapped += 1  # some tools do so, and have the boxes right
    if swapped:
        LOG.warning("WARNING: %s has height and width of %d images the wrong way round", source, swapped)
    if outside.mean() > MOST_OUTSIDE:
        raise UserError(
            f"{source}: {int(outside.sum())} of {len(outside)} boxes leave their images: "
            "bbox must be x, y, width, height in pixels"
        )
    if boxes.boxes.max() <= 1:
        raise UserError(f"{source}: no box is larger than a pixel: bbox must be x, y, width, height in pixels")
