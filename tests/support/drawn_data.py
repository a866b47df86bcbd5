"""Small data sets of coloured rectangles, in the layouts and with the faults of users' ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Sequence

import cv2
import numpy as np
import yaml

from support.perfect_detector import colour

SIDE = 64  # of the images and of the network
NAMES = ["ant", "bee", "cat"]
PLAIN = [f"{number:03d}.png" for number in range(8)]
CAMERAS = [f"{camera}/{number:03d}.png" for camera in ("cam1", "cam2") for number in range(4)]


class Thing(NamedTuple):
    """An object: class, and left, top, width, height in pixels."""

    label: int
    x: int
    y: int
    w: int
    h: int


def draw(file: Path, generator: np.random.Generator, height: int = SIDE) -> list[Thing]:
    """Draw an image with one to four objects, and a black background."""
    image = np.zeros((height, SIDE, 3), np.uint8)
    things = []
    for slot in range(4):  # one in each quarter, at most
        if slot and generator.random() < 0.3:
            continue
        label, w, h = (int(value) for value in generator.integers((0, 8, 8), (3, 28, height // 2 - 3)))
        x = SIDE // 2 * (slot % 2) + int(generator.integers(1, SIDE // 2 - w))
        y = height // 2 * (slot // 2) + int(generator.integers(1, height // 2 - h))
        image[y : y + h, x : x + w] = colour(label, slot)[::-1]  # OpenCV takes B, G, R
        things.append(Thing(label, x, y, w, h))
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)
    return things


class Drawn:
    """A data set that serves ``--cocodir`` (its folder) and ``--data`` (its data.yaml).

    Attributes:
        root: its folder.
        things: objects of each validation image, by the path below images/val2017.
        json: what annotations/instances_val2017.json will hold: an object, bytes, or None for no file.
        yaml: what data.yaml will hold: an object or bytes.
    """

    def __init__(self, root: Path, files: Sequence[str] = PLAIN, seed: int = 0) -> None:
        self.root, self.seed = root, seed
        generator = np.random.default_rng(seed)
        self.things = {
            name: draw(self.val / name, generator, SIDE if number % 2 else SIDE - 16)
            for number, name in enumerate(files)
        }
        for number in range(2):
            draw(root / "images" / "train2017" / f"t{number}.png", generator)
        for name in self.things:
            self.write_label(name)
        self.json: Any = self.coco()
        self.yaml: Any = {
            "path": str(root),
            "train": "images/train2017",
            "val": "images/val2017",
            "nc": len(NAMES),
            "names": list(NAMES),
        }

    @property
    def val(self) -> Path:
        """Folder of the validation images."""
        return self.root / "images" / "val2017"

    @property
    def labels(self) -> Path:
        """Folder of their labels."""
        return self.root / "labels" / "val2017"

    def label(self, name: str) -> Path:
        """The label file of an image."""
        return (self.labels / name).with_suffix(".txt")

    def pixels(self, name: str) -> np.ndarray:
        """A validation image, (H, W, 3)."""
        image = cv2.imread(str(self.val / name))
        assert image is not None
        return image

    def rows(self, name: str) -> list[str]:
        """The lines of its label file."""
        height, width = self.pixels(name).shape[:2]
        return [
            f"{thing.label} {(thing.x + thing.w / 2) / width:.8f} {(thing.y + thing.h / 2) / height:.8f} "
            f"{thing.w / width:.8f} {thing.h / height:.8f}"
            for thing in self.things[name]
        ]

    def write_label(self, name: str, more: Sequence[str] = (), ending: str = "\n") -> None:
        """Write the label file of an image, with more rows behind its own."""
        self.label(name).parent.mkdir(parents=True, exist_ok=True)
        self.label(name).write_bytes("".join(row + ending for row in [*self.rows(name), *more]).encode())

    def coco(self) -> dict[str, Any]:
        """A COCO JSON as the COCO project would write it."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (name, things) in enumerate(self.things.items(), 1):
            height, width = self.pixels(name).shape[:2]
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for thing in things:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": thing.label + 1,
                        "bbox": [thing.x, thing.y, thing.w, thing.h],
                        "area": thing.w * thing.h,
                        "iscrowd": 0,
                        "segmentation": [],
                    }
                )
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}

    def without_labels(self) -> None:
        """Remove all label files."""
        shutil.rmtree(self.root / "labels")

    def write_list(self, lines: Sequence[str], form: str = "{}\n", encoding: str = "utf-8") -> None:
        """Name the validation images by a list."""
        (self.root / "val2017.txt").write_bytes("".join(form.format(line) for line in lines).encode(encoding))
        self.yaml["val"] = "val2017.txt"

    def rename_images(self, change: Callable[[str], str]) -> None:
        """Change the file names in the JSON."""
        for image in self.json["images"]:
            image["file_name"] = change(image["file_name"])

    def finish(self) -> None:
        """Write the JSON and data.yaml."""
        if self.json is not None:
            content = self.json if isinstance(self.json, bytes) else json.dumps(self.json).encode()
            (self.root / "annotations").mkdir(exist_ok=True)
            (self.root / "annotations" / "instances_val2017.json").write_bytes(content)
        content = self.yaml if isinstance(self.yaml, bytes) else yaml.safe_dump(self.yaml).encode()
        (self.root / "data.yaml").write_bytes(content)


@dataclass(frozen=True)
class Case:
    """A data set, and what its evaluation must end in.

    Attributes:
        name: of the case.
        change: makes it of a sound data set.
        error: pattern of the one line of error; None: mAP must be 1.
        says: pattern of something that the log must hold.
        truth: "json" or "labels", or "both" kinds of annotations.
        forms: which flags name it.
        files: the validation images.
        images: number of them that must be counted.
        images_yolov7: the same for yolov7, where it decides otherwise; None: as ``images``.
        one_class: evaluate a detector of one class.
    """

    name: str
    change: Callable[[Drawn], None]
    error: str | None = None
    says: str = ""
    truth: str = "json"
    forms: tuple[str, ...] = ("cocodir", "data")
    files: Sequence[str] = tuple(PLAIN)
    images: int = 8
    images_yolov7: int | None = None
    one_class: bool = False

    def make(self, root: Path) -> None:
        """Write the data set."""
        drawn = Drawn(root, self.files)
        if self.truth == "json":
            drawn.without_labels()
        elif self.truth == "labels":
            drawn.json = None
        self.change(drawn)
        drawn.finish()


class Table(Dict[str, Case]):
    """Cases by name."""

    def case(self, error: str | None = None, **more: Any) -> Callable[[Callable[[Drawn], None]], None]:
        """Decorator that adds a function as a case of its name."""

        def add(change: Callable[[Drawn], None]) -> None:
            name = change.__name__
            assert name not in self, name
            self[name] = Case(name, change, error, **more)

        return add
