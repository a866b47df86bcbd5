"""Checks of a whole data set before any work: what upstream leaves out is left out, what it would misread is refused."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from quantization.data.dataset import Dataset
from quantization.data.headers import image_fault
from quantization.data.labels import LabelFile, label_file, label_refusal, parse_labels
from quantization.errors import UserError
from quantization.progress_bar import progress_bar

LOG = logging.getLogger("quantization")
THREADS = 8
CHUNK = 1000


@dataclass(frozen=True)
class Needs:
    """What a command needs of a data set.

    Attributes:
        upstream: "yolov5" or "yolov7".
        classes: number of classes of the model.
        single_cls: the labels of all classes count as class 0, as by upstream's ``--single-cls``.
        train: whether training images are read.
        train_labels: whether their labels are read too.
        val: whether validation images are read; their labels are, unless the data set has a COCO JSON.
    """

    upstream: str
    classes: int
    single_cls: bool = False
    train: bool = True
    train_labels: bool = False
    val: bool = True


@dataclass(frozen=True)
class LabelSummary:
    """What the check of a split found.

    Attributes:
        labelled: images with objects.
        missing: images without a label file.
        empty: images with a label file without rows.
        corrupt: images that were left out.
        duplicates: repeated label rows that are removed.
        boxes: objects of each class.
    """

    labelled: int
    missing: int
    empty: int
    corrupt: int
    duplicates: int
    boxes: tuple[int, ...]


@dataclass(frozen=True)
class CheckedDataset:
    """A data set without the images that upstream leaves out.

    Attributes:
        dataset: what is left.
        train: of the training labels; None if they were not read.
        val: of the validation labels; None if they were not read.
    """

    dataset: Dataset
    train: LabelSummary | None
    val: LabelSummary | None


def check_dataset(dataset: Dataset, needs: Needs) -> CheckedDataset:
    """Check the images' headers and the label files that a command will read.

    Args:
        dataset: of ``open_dataset``.
        needs: what of it will be read.

    Raises:
        UserError: the classes do not fit the model, a label would be misread, no image of a split is left, or the
            validation images have no objects.
    """
    count = dataset.class_count
    if count is not None and count != needs.classes and not needs.single_cls:
        raise UserError(
            f"{dataset.source} has {count} classes, the model has {needs.classes}: "
            "use the data that the model was trained on"
        )
    train = val = None
    if needs.train:
        files, train = _check_split(dataset.train, f"{dataset.source}, train", needs, needs.train_labels)
        dataset = dataset.with_train(files)
    if needs.val:
        files, val = _check_split(dataset.val, f"{dataset.source}, val", needs, dataset.annotations is None)
        if val is not None:
            _refuse_no_truth(dataset.val[0], val, dataset.source)
        dataset = dataset.with_val(files)
    return CheckedDataset(dataset, train, val)


def check_channels(channels: int, file: str) -> None:
    """Refuse a model that upstream's evaluation cannot feed.

    Args:
        channels: input channels of the model's first convolution.
        file: the checkpoint or ONNX, for the message.

    Raises:
        UserError: there are not three.
    """
    if channels != 3:
        raise UserError(
            f"{file}: the first convolution takes {channels} channels; images are read in BGR, 3 channels, "
            "and upstream's val.py and test.py cannot run such a model either"
        )


def _looks(
    images: Sequence[str], name: str, needs: Needs, with_labels: bool
) -> Iterator[tuple[str, str, LabelFile | None]]:
    """Each image, why it is left out ("" if it is not), and its labels if they are asked for."""

    def look(image: str) -> tuple[str, LabelFile | None]:
        fault = image_fault(image, needs.upstream)
        label = parse_labels(label_file(image), needs.upstream) if with_labels and not fault else None
        return fault or (label.corrupt if label is not None else ""), label

    with progress_bar(total=len(images), title=f"Check {name}", unit="image") as bar:
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(images), CHUNK):  # in parts, so that an error does not wait for all images
                part = images[start : start + CHUNK]
                for image, found in zip(part, pool.map(look, part)):
                    yield (image, *found)
                bar.update(len(part))


def _check_split(
    images: Sequence[str], name: str, needs: Needs, with_labels: bool
) -> tuple[list[str], LabelSummary | None]:
    """The images that stay, and what their labels hold."""
    kept: list[str] = []
    labels: list[LabelFile] = []
    faults: list[str] = []
    for image, fault, label in _looks(images, name, needs, with_labels):
        if fault:
            faults.append(fault)
            continue
        kept.append(image)
        if label is not None:
            _refuse(label, image, needs)
            labels.append(label)
    if faults:
        LOG.warning("%s: %d of %d images are left out (first: %s)", name, len(faults), len(images), faults[0])
    if not kept:
        raise UserError(f"{name}: none of {len(images)} images can be used (first: {faults[0]})")
    if not with_labels:
        return kept, None
    summary = _summary(labels, len(faults), needs)
    LOG.info(
        "%s: %d images with labels, %d without (background), %d corrupt, %d duplicate rows removed",
        name,
        summary.labelled,
        summary.missing + summary.empty,
        summary.corrupt,
        summary.duplicates,
    )
    return kept, summary


def _refuse(label: LabelFile, image: str, needs: Needs) -> None:
    if not len(label.rows):
        return
    complaint = label_refusal(label, label_file(image), needs.classes, needs.single_cls)
    if complaint:
        raise UserError(complaint)


def _summary(labels: Sequence[LabelFile], corrupt: int, needs: Needs) -> LabelSummary:
    classes = np.concatenate([np.zeros(0), *(label.rows[:, 0] for label in labels)]).astype(int)
    if needs.single_cls:
        classes[:] = 0
    return LabelSummary(
        labelled=sum(len(label.rows) > 0 for label in labels),
        missing=sum(not label.found for label in labels),
        empty=sum(label.found and not len(label.rows) for label in labels),
        corrupt=corrupt,
        duplicates=sum(label.duplicates for label in labels),
        boxes=tuple(int(count) for count in np.bincount(classes, minlength=needs.classes)),
    )


def _refuse_no_truth(first: str, summary: LabelSummary, source: str) -> None:
    """Raises a UserError if the validation images have no objects: their mAP would be undefined."""
    if summary.labelled:
        return
    if summary.empty:
        raise UserError(
            f"{source}: the validation images have no box at all ({summary.empty} label files are empty), so their "
            "mAP is undefined: name images with objects"
        )
    raise UserError(
        f"{source}: no validation image has labels: {label_file(first)} is the first that is missing{_hint(first)}"
    )


def _hint(image: str) -> str:
    """What the user's layout lacks of upstream's."""
    folder = label_file(image).parent
    existing = folder
    while not existing.exists():
        existing, missing = existing.parent, existing.name
        if existing.exists():
            other = next((name for name in sorted(os.listdir(existing)) if name.lower() == missing.lower()), None)
            if other is not None:
                return f"; rename {existing / other} to {missing}"
    parents = Path(image).parent.parts
    if "images" not in parents:
        wrong = next((name for name in reversed(parents) if "image" in name.lower() or name.lower() == "img"), None)
        rename = f"rename {wrong} to images and " if wrong else ""
        return f"; {rename}put images below images/ and labels below labels/, or each .txt beside its image"
    if Path(image).with_suffix(".txt").is_file():
        return "; a label beside an image is not read if its path has /images/: move the labels to labels/"
    return "; put the labels below labels/, in place of images/"
