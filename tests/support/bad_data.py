"""Data sets that ``quantize`` must refuse, or read without some images, each fault once in train and once in val."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import yaml

from support.drawn_data import PLAIN, Drawn, draw

BOTH = ("cocodir", "data")
SPLITS = {"train": "train2017", "val": "val2017"}


class Split:
    """One split of a sound data set, for a fault to be put into.

    Attributes:
        drawn: the data set; both its splits have labels.
        name: "train" or "val".
        part: the name of its folders.
    """

    def __init__(self, drawn: Drawn, name: str) -> None:
        self.drawn, self.name, self.part = drawn, name, SPLITS[name]

    @property
    def images(self) -> Path:
        """Folder of the split's images."""
        return self.drawn.root / "images" / self.part

    @property
    def labels(self) -> Path:
        """Folder of the split's labels."""
        return self.drawn.root / "labels" / self.part

    def add_row(self, row: str, number: int = 1) -> None:
        """Write one more row into the label of an image."""
        with open(self.labels / f"{PLAIN[number][:-4]}.txt", "a", encoding="utf-8") as file:
            file.write(f"{row}\n")

    def write_list(self, content: bytes) -> None:
        """Name the split's images by a list."""
        (self.drawn.root / f"{self.part}.txt").write_bytes(content)
        self.drawn.yaml[self.name] = f"{self.part}.txt"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a split, and what must come of it.

    Attributes:
        change: puts it in.
        error: pattern of the one line of error; None: the image is left out.
        says: pattern of the warning where it is.
        split: the one split that it concerns; None: either.
        json: whether validation has an annotation JSON.
        forms: which flags name the data set.
    """

    change: Callable[[Split], None]
    error: str | None = None
    says: str = ""
    split: str | None = None
    json: bool = False
    forms: tuple[str, ...] = ("data",)

    def make(self, root: Path, name: str) -> None:
        """Write a data set with the fault in a split."""
        drawn = Drawn(root)
        for number, file in enumerate(PLAIN):  # train: the same labels, with pictures that differ
            for old in (root / "images" / "train2017").glob("t*.png"):
                old.unlink()
            draw(root / "images" / "train2017" / file, np.random.default_rng(number))
        shutil.copytree(root / "labels" / "val2017", root / "labels" / "train2017")
        if not self.json:
            drawn.json = None
        self.change(Split(drawn, name))
        drawn.finish()


FAULTS: dict[str, Fault] = {}


def fault(error: str | None = None, **more: Any) -> Callable[[Callable[[Split], None]], None]:
    """Decorator that adds a function to ``FAULTS``."""

    def add(change: Callable[[Split], None]) -> None:
        FAULTS[change.__name__] = Fault(change, error, **more)

    return add


# --- labels -----------------------------------------------------------------------------------------------------------


@fault(says=r"1 of 8 images are left out .*001\.txt, line \d: the box is out of range")
def row_out_of_range(split: Split) -> None:
    split.add_row("0 0.5 1.5 0.1 0.1")


@fault(says=r"1 of 8 images are left out .*001\.txt, line \d: 'ant .*' is not a row of numbers")
def row_not_of_numbers(split: Split) -> None:
    split.add_row("ant 0.5 0.5 0.1 0.1")


@fault(says=r"1 of 8 images are left out .*001\.txt is not UTF-8")
def label_is_binary(split: Split) -> None:
    (split.labels / "001.txt").write_bytes(b"\xff\xd8\xff\xe0 a picture")


@fault(r"001\.txt, line \d: class 3 is out of range, the model has 3 classes", forms=BOTH)
def class_too_high(split: Split) -> None:
    split.add_row("3 0.5 0.5 0.1 0.1")


@fault(r"001\.txt, line \d: class 0\.5 is not a whole number")
def class_with_a_fraction(split: Split) -> None:
    split.add_row("0.5 0.5 0.5 0.1 0.1")


@fault(r"001\.txt, line \d: a box among polygons")
def box_among_polygons(split: Split) -> None:
    split.add_row("0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9")


@fault("none of 8 images can be used")
def all_rows_out_of_range(split: Split) -> None:
    for number in range(len(PLAIN)):
        split.add_row("0 0.5 1.5 0.1 0.1", number)


@fault(r"labels.val2017.000\.txt is the first that is missing", split="val", forms=BOTH)
def no_labels_folder(split: Split) -> None:
    shutil.rmtree(split.labels)


@fault(r"no training image has any: .*labels.train2017.000\.txt", split="train")
def no_training_labels(split: Split) -> None:
    shutil.rmtree(split.labels)


@fault("no box at all", split="val")
def labels_without_rows(split: Split) -> None:
    for label in split.labels.iterdir():
        label.write_text("")


# --- pictures ---------------------------------------------------------------------------------------------------------


@fault(says=r"1 of 8 images are left out .*001\.png is not a readable image")
def picture_of_no_bytes(split: Split) -> None:
    (split.images / "001.png").write_bytes(b"")


@fault(says=r"1 of 8 images are left out .*001\.png")
def picture_with_half_a_header(split: Split) -> None:
    (split.images / "001.png").write_bytes((split.images / "001.png").read_bytes()[:20])


@fault(says=r"1 of 8 images are left out .*001\.png")
def picture_cut_off(split: Split) -> None:
    (split.images / "001.png").write_bytes((split.images / "001.png").read_bytes()[:-60])


@fault(says=r"1 of 8 images are left out .*001\.png has 64 x 8 pixels")
def picture_below_10_pixels(split: Split) -> None:
    cv2.imwrite(str(split.images / "001.png"), np.zeros((8, 64, 3), np.uint8))


@fault(says=r"1 of 8 images are left out .*001\.png is a GIF file")
def gif_called_png(split: Split) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(split.images / "001.png", "GIF")


@fault("none of 8 images can be used")
def all_pictures_of_no_bytes(split: Split) -> None:
    for file in split.images.iterdir():
        file.write_bytes(b"")


@fault(r"does not exist|lists no images|has neither|there is no", forms=BOTH)
def no_folder_of_pictures(split: Split) -> None:
    shutil.rmtree(split.images)


# --- lists ------------------------------------------------------------------------------------------------------------


@fault(r"2017\.txt, line 2, lists .*none\.png, which does not exist", forms=BOTH)
def list_with_a_missing_file(split: Split) -> None:
    split.write_list(f"./images/{split.part}/000.png\n./images/{split.part}/none.png\n".encode())


@fault(r"2017\.txt is not UTF-8 text .*iconv")
def list_in_gbk(split: Split) -> None:
    split.write_list("./images/照片/000.png\n".encode("gbk"))


@fault(r"2017\.txt has NUL bytes: .*UTF-16 without a byte-order mark")
def list_in_utf_16_without_a_mark(split: Split) -> None:
    split.write_list("./images/a/000.png\n".encode("utf-16-le"))


@fault(r"2017\.txt lists no images")
def empty_list(split: Split) -> None:
    split.write_list(b"\n")


# --- data.yaml --------------------------------------------------------------------------------------------------------


@fault(r"nc: is 'three'", split="val")
def count_is_a_word(split: Split) -> None:
    split.drawn.yaml["nc"] = "three"


@fault(r"names: is 'person'", split="val")
def names_is_a_word(split: Split) -> None:
    split.drawn.yaml.update(names="person")


@fault(r"data\.yaml is not UTF-8 text", split="val")
def yaml_in_gbk(split: Split) -> None:
    split.drawn.yaml["names"] = ["蚂蚁", "蜜蜂", "猫"]
    split.drawn.yaml = yaml.safe_dump(split.drawn.yaml, allow_unicode=True).encode("gbk")


@fault(r"is not valid YAML", split="val")
def yaml_with_a_tab(split: Split) -> None:
    split.drawn.yaml = yaml.safe_dump(split.drawn.yaml).encode() + b"\n\tnc: 3\n"


@fault(r"(train|val): is empty")
def yaml_without_the_split(split: Split) -> None:
    split.drawn.yaml[split.name] = None


@fault(r"(train|val): there is no .*/images/nowhere and no")
def yaml_of_another_machine(split: Split) -> None:
    split.drawn.yaml[split.name] = "images/nowhere"


@fault(r"has 4 classes, the model has 3", split="val")
def yaml_of_another_model(split: Split) -> None:
    split.drawn.yaml.update(nc=4, names=["ant", "bee", "cat", "dog"])


# --- JSON -------------------------------------------------------------------------------------------------------------


def no_val_labels(split: Split) -> None:
    shutil.rmtree(split.drawn.labels)


@fault(r"instances_val2017\.json: annotation number 2 has no bbox", split="val", json=True, forms=BOTH)
def json_without_bbox(split: Split) -> None:
    no_val_labels(split)
    del split.drawn.json["annotations"][1]["bbox"]


@fault(r"instances_val2017\.json does not list .*000\.png", split="val", json=True)
def json_of_another_split(split: Split) -> None:
    no_val_labels(split)
    split.drawn.rename_images(lambda name: f"other-{name}")


@fault(r"instances_val2017\.json is (no|not valid) JSON", split="val", json=True)
def json_cut_off(split: Split) -> None:
    no_val_labels(split)
    split.drawn.json = b'{"images": ['


@fault(r"instances_val2017\.json: annotation number 1 is of category 9", split="val", json=True)
def json_of_unknown_category(split: Split) -> None:
    no_val_labels(split)
    split.drawn.json["annotations"][0]["category_id"] = 9


@fault(says=r"1 of 8 images are left out .*001\.png", split="val", json=True, forms=BOTH)
def json_beside_a_picture_of_no_bytes(split: Split) -> None:
    no_val_labels(split)
    (split.images / "001.png").write_bytes(b"")


@fault(says=r"does not list .*label files are used.*\n(.*\n)*.*1 of 8 images are left out", split="val", json=True)
def json_of_another_split_beside_labels_with_a_bad_row(split: Split) -> None:
    split.drawn.rename_images(lambda name: f"other-{name}")
    split.add_row("0 0.5 1.5 0.1 0.1")
