"""Where a data set's images and annotations lie. No image is opened; see ``checks`` for that."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Sequence

from quantization.data.data_yaml import DataYaml, read_data_yaml, split_sources
from quantization.data.listing import find_images
from quantization.errors import UserError

LOG = logging.getLogger("quantization")


@dataclass(frozen=True)
class Dataset:
    """Where a data set's parts lie.

    Attributes:
        train: absolute paths of the images for calibration and finetuning.
        val: absolute paths of the images for evaluation.
        annotations: COCO JSON of the validation images; None: their YOLO label files are read.
        names: class names; empty if only the annotations tell.
        source: what the user named, for messages.
        class_count: number of classes; None if only the annotations tell.
    """

    train: list[str]
    val: list[str]
    annotations: Path | None
    names: list[str]
    source: str
    class_count: int | None = None

    def with_train(self, files: Sequence[str]) -> Dataset:
        """The same data set with these training images."""
        return replace(self, train=list(files))

    def with_val(self, files: Sequence[str]) -> Dataset:
        """The same data set with these validation images."""
        return replace(self, val=list(files))

    def class_names(self, classes: int) -> list[str]:
        """A name for each class of the model: those of the data set, or class0, class1... as upstream makes them."""
        return self.names or [f"class{number}" for number in range(classes)]


def open_dataset(cocodir: str | None = None, data: str | None = None) -> Dataset:
    """Find the images and annotations.

    Args:
        cocodir: folder with train2017.txt and val2017.txt (or images/train2017, images/val2017) and
            annotations/instances_val2017.json or labels/val2017.
        data: a YOLO data.yaml with train, val and names.

    Raises:
        UserError: neither or both given, something is missing, or no image is found.
    """
    if (cocodir is None) == (data is None):
        raise UserError("name the data set with either --cocodir DIR or --data data.yaml")
    return _open_yaml(Path(data)) if data is not None else _open_cocodir(Path(str(cocodir)))


def image_files(source: str | Path) -> list[str]:
    """Image files of a folder (with its subfolders), of a .txt list, or of the val split of a data.yaml.

    Raises:
        UserError: the source is missing or holds no image, or a listed image does not exist.
    """
    source = Path(source)
    if source.suffix in (".yaml", ".yml") and not source.is_dir():
        return open_dataset(data=str(source)).val
    return find_images([source], str(source))


def _open_cocodir(folder: Path) -> Dataset:
    name = f"--cocodir {folder}"
    if not folder.is_dir():
        raise UserError(f"{name} is not a folder: name the one that holds images/ and val2017.txt")
    parts = {}
    for part in ("train2017", "val2017"):
        source = cocodir_source(folder, part)
        if not source.is_file() and not source.is_dir():
            raise UserError(f"{name} has neither {part}.txt nor images/{part}; for a data.yaml use --data")
        parts[part] = find_images([source], f"{name}, {part}")
    annotations = folder / "annotations" / "instances_val2017.json"
    return Dataset(parts["train2017"], parts["val2017"], annotations if annotations.is_file() else None, [], name)


def cocodir_source(folder: Path, part: str) -> Path:
    """Where the images of a part of a COCO folder are listed: its list, else its folder, whether that is there or not."""
    listing = folder / f"{part}.txt"
    return listing if listing.is_file() else folder / "images" / part


def _open_yaml(file: Path) -> Dataset:
    content = read_data_yaml(file)
    train, val = (
        find_images(_chosen(content, part, entries), f"--data {file}, {part}:")
        for part, entries in (("train", content.train), ("val", content.val))
    )
    root = Path(content.root or file.parent)
    candidates = (base / "annotations" / "instances_val2017.json" for base in (root, file.parent / root))
    annotations = next((candidate for candidate in candidates if candidate.is_file()), None)
    return Dataset(train, val, annotations, content.names, f"--data {file}", content.class_count)


def _chosen(content: DataYaml, part: str, entries: list[str]) -> list[Path]:
    """The sources of a split, with a warning where an entry could mean two places."""
    sources = split_sources(content, part, entries)
    for source, others in sources:
        for other in others[:1]:
            LOG.warning("--data %s: %s: is read from %s; %s exists too", content.file, part, source, other)
    return [source for source, _ in sources]
