"""Public data sets of photographs as folders in YOLO layout: read from where they lie on the disk, nothing is downloaded.

    name          repository, as cloned                 classes   validation              weight
    coco128       lightly-ai/coco128_yolo               80        its val2017, 128        COCO's yolov5n.pt, given
    blood-cells   Shenggan/BCCD_Dataset                 3         its val.txt             trained
    corn-pests    JeymsKun/dataset-yolov5               4         its valid, 233          its own best.pt
    thermal       GabrielaVidal7/Thermal_dataset        1         its test, 300           trained

Any other name stands for a folder with a data.yaml, and a best.pt if it is not to be trained.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

import yaml
from bundle import BUNDLE  # noqa: F401  # puts the bundle on the import path

from quantization.errors import UserError

BLOOD_CELLS = ("RBC", "WBC", "Platelets")
PESTS = "datasets/Corn-Pest-v4-4"


@dataclass(frozen=True)
class RealSet:
    """A data set to measure on.

    Attributes:
        name: of the set.
        data: its data.yaml.
        weight: a float checkpoint trained on it; None: it has to be trained.
    """

    name: str
    data: Path
    weight: Path | None


def lay_out(name: str, source: Path, folder: Path) -> RealSet:
    """Make the data set in ``folder``; images and labels are copied, since upstream writes caches beside them.

    Args:
        name: a key of ``LAYOUTS``, or any other for a folder in YOLO layout, which is used where it is.
        source: where it lies.
        folder: made, or left as it is where it is complete.

    Raises:
        UserError: something that the set needs is not in ``source``.
    """
    if not source.is_dir():
        raise UserError(f"--sets {name}={source}: there is no such folder")
    if name not in LAYOUTS:
        data = _needed(source / "data.yaml", name)
        weight = source / "best.pt"
        return RealSet(name, data, weight if weight.is_file() else None)
    data = folder / "data.yaml"
    if not data.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        names = LAYOUTS[name](source, folder)
        _write_data(data, names)
    weight = source / WEIGHTS.get(name, "best.pt")
    return RealSet(name, data, weight if weight.is_file() else None)


def _needed(path: Path, name: str) -> Path:
    if not path.exists():
        raise UserError(f"--sets {name}: {path} is missing")
    return path


def _write_data(file: Path, names: Sequence[str]) -> None:
    """The data.yaml of a laid out set, last: with it the set is complete."""
    places = {split: str((file.parent / "images" / split).resolve()) for split in ("train", "val")}
    file.write_text(yaml.safe_dump({**places, "nc": len(names), "names": list(names)}), encoding="utf-8")


def _copy(images: Path, labels: Path, folder: Path, split: str, name: str) -> None:
    """Copy a split that is in YOLO layout already."""
    shutil.copytree(_needed(images, name), folder / "images" / split)
    shutil.copytree(_needed(labels, name), folder / "labels" / split, ignore=shutil.ignore_patterns("*.cache"))


def _coco128(source: Path, folder: Path) -> list[str]:
    """Images beside folders of labels for several tasks."""
    content = yaml.safe_load(
        _needed(source / "object_detection" / "config.yaml", "coco128").read_text(encoding="utf-8")
    )
    for split in ("train", "val"):
        labels = source / "object_detection" / "labels" / f"{split}2017"
        _copy(source / "images" / f"{split}2017", labels, folder, split, "coco128")
    return [str(name) for _, name in sorted(content["names"].items())]


def _corn_pests(source: Path, folder: Path) -> list[str]:
    """Roboflow's export; its data.yaml has paths of another machine."""
    content = yaml.safe_load(_needed(source / PESTS / "data.yaml", "corn-pests").read_text(encoding="utf-8"))
    for split, theirs in (("train", "train"), ("val", "valid")):
        _copy(source / PESTS / theirs / "images", source / PESTS / theirs / "labels", folder, split, "corn-pests")
    return [str(name) for name in content["names"]]


def _thermal(source: Path, folder: Path) -> list[str]:
    """People, seen by a thermal camera: one class."""
    for split, theirs in (("train", "train"), ("val", "test")):  # its validation has 51 images: too few to tell much
        place = source / "Dataset" / theirs
        _copy(place / "images", place / "labels", folder, split, "thermal")
    return ["person"]


def _blood_cells(source: Path, folder: Path) -> list[str]:
    """Pascal VOC: lists of names, an XML for each image."""
    place = source / "BCCD"
    for split in ("train", "val"):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for stem in _needed(place / "ImageSets" / "Main" / f"{split}.txt", "blood-cells").read_text().split():
            image = _needed(place / "JPEGImages" / f"{stem}.jpg", "blood-cells")
            shutil.copyfile(image, images / image.name)
            rows = voc_rows(_needed(place / "Annotations" / f"{stem}.xml", "blood-cells"), BLOOD_CELLS)
            (labels / f"{stem}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return list(BLOOD_CELLS)


def voc_rows(file: Path, names: Sequence[str]) -> list[str]:
    """The boxes of a Pascal VOC file as rows of YOLO labels: class, centre, width and height, shares of the image.

    Boxes that leave the image end at its border; empty ones and repeated ones are left out.

    Raises:
        UserError: a class is not among the names.
    """
    root = ElementTree.parse(file).getroot()
    width, height = (float(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    rows: list[str] = []
    for entry in root.iter("object"):
        name = entry.findtext("name", "")
        if name not in names:
            raise UserError(f"{file} has the class {name}: {', '.join(names)} are known")
        left, top, right, bottom = (
            min(max(float(entry.findtext(f"bndbox/{side}", "0")), 0.0), limit)
            for side, limit in (("xmin", width), ("ymin", height), ("xmax", width), ("ymax", height))
        )
        if right > left and bottom > top:
            shares = (
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            )
            rows.append(" ".join([str(names.index(name)), *(f"{share:.6f}" for share in shares)]))
    return list(dict.fromkeys(rows))


LAYOUTS: Mapping[str, Callable[[Path, Path], Sequence[str]]] = {
    "coco128": _coco128,
    "blood-cells": _blood_cells,
    "corn-pests": _corn_pests,
    "thermal": _thermal,
}
WEIGHTS = {"corn-pests": "yolov5/runs/train/exp/weights/best.pt"}
