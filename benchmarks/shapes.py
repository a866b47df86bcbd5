"""Draw a detection data set of textured shapes in COCO's layout; the same seed gives the same bytes.

    python benchmarks/shapes.py OUT --train 200 --val 60 --size 320 --classes 6 --objects 6 --seed 0

OUT receives what both upstreams read:

    images/{train2017,val2017}/000000000001.jpg
    labels/{train2017,val2017}/000000000001.txt     YOLO: class x y w h, in fractions of the image
    train2017.txt  val2017.txt                      image lists, relative to OUT
    annotations/instances_val2017.json              category id = class index, image id = number of the file
    data.yaml

A class is a pair of a shape and a texture; colours, positions and sizes say nothing about it. Images differ in aspect
ratio, so letterboxing matters. Objects overlap, but enough of each stays visible; an object's label is the box around its
visible pixels.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
from pathlib import Path
from typing import NamedTuple, Sequence

import cv2
import numpy as np
from shape_classes import MAX_CLASSES, background, class_names, outline, texture

SPLITS = ("train2017", "val2017")
FIRST_ID = {"train2017": 1, "val2017": 500001}  # numbers of the files: the splits share none
ASPECT_RATIOS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9)  # width / height
PLACEMENT_ATTEMPTS = 8
JPEG_QUALITY = 92


class Settings(NamedTuple):
    """What every image of a data set has in common."""

    out: Path
    size: int  # long side in pixels
    classes: int
    objects: int  # mean number of objects per image
    seed: int
    difficulty: float  # 0 (easy) to 1: clutter, noise, rotation, occlusion, small objects, low contrast
    largest: float = 0.5  # diameter of the largest objects, of the long side


class Labelled(NamedTuple):
    """One object: class index, visible box (x, y, w, h) in pixels, visible pixels."""

    cls: int
    box: tuple[int, int, int, int]
    area: int


def two_colours(rng: np.random.Generator, behind: np.ndarray, difficulty: float) -> tuple[np.ndarray, np.ndarray]:
    """A texture's two colours: apart from each other, and the first one apart from the mean colour behind it."""
    apart = 110 - 50 * difficulty
    candidates = rng.uniform(0, 255, (20, 2, 3)).astype(np.float32)
    contrast = np.minimum(
        np.abs(candidates[:, 0] - behind).mean(axis=1) / 0.8, np.abs(candidates[:, 0] - candidates[:, 1]).mean(axis=1)
    )
    enough = np.flatnonzero(contrast >= apart)
    first, second = candidates[enough[0] if len(enough) else contrast.argmax()]
    return first, second


class Canvas:
    """An image under construction, and which object each pixel shows (0: none)."""

    def __init__(self, rng: np.random.Generator, settings: Settings) -> None:
        ratio = float(rng.choice(ASPECT_RATIOS))
        self.height = round(settings.size / max(ratio, 1.0))
        self.width = round(settings.size * min(ratio, 1.0))
        self.rng = rng
        self.settings = settings
        self.min_visible = 0.85 - 0.4 * settings.difficulty  # fraction of its pixels that each object keeps
        self.image = background(rng, self.height, self.width, settings.difficulty)
        self.owner = np.zeros((self.height, self.width), np.int16)
        self.classes: list[int] = []
        self.pixels: list[int] = [0]  # of each whole object, by its number in `owner`

    def add(self) -> None:
        """Draw one object where it leaves every other one visible enough; give up after some attempts."""
        rng, settings = self.rng, self.settings
        cls = int(rng.integers(settings.classes))
        smallest = 0.12 - 0.07 * settings.difficulty
        diameter = settings.size * smallest * (settings.largest / smallest) ** (rng.random() ** 1.5)  # skewed to small
        diameter = float(np.clip(diameter, 8, 0.9 * min(self.height, self.width)))
        points, hole = outline(cls, diameter / 2, rng.uniform(-90, 90) * settings.difficulty, rng)
        side = int(np.ceil(np.abs(points).max())) * 2 + 3
        alpha = np.zeros((side, side), np.uint8)
        shift = 4  # fixed-point bits of cv2's subpixel coordinates
        cv2.fillPoly(alpha, [np.rint((points + side / 2) * 2**shift).astype(np.int32)], 255, cv2.LINE_AA, shift)
        if hole:
            centre = round(side / 2 * 2**shift)
            cv2.circle(alpha, (centre, centre), round(hole * 2**shift), 0, -1, cv2.LINE_AA, shift)
        solid = alpha > 127
        whole = int(solid.sum())

        for _ in range(PLACEMENT_ATTEMPTS):
            left = int(rng.integers(-side // 8, max(self.width - side + side // 8, 0) + 1))
            top = int(rng.integers(-side // 8, max(self.height - side + side // 8, 0) + 1))
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, self.width), min(top + side, self.height)
            here = np.s_[y0:y1, x0:x1]
            part = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            if solid[part].sum() >= self.min_visible * whole and self._leaves_others_visible(here, solid[part]):
                break
        else:
            return

        behind = np.array(cv2.mean(self.image[here])[:3], np.float32)
        first, second = two_colours(rng, behind, settings.difficulty)
        blend = texture(cls, side, diameter, rng)[part][..., None]  # (h, w, 1), 0: first colour, 1: second
        shade = np.float32(rng.uniform(-18, 18)) * np.linspace(-1, 1, side, dtype=np.float32)  # light from one side
        paint = first + (second - first) * blend + shade[None, part[1], None]
        opacity = alpha[part][..., None] * np.float32(1 / 255)
        self.image[here] += (paint - self.image[here]) * opacity
        self.pixels.append(whole)
        self.classes.append(cls)
        self.owner[here][solid[part]] = len(self.classes)

    def _leaves_others_visible(self, here: tuple[slice, slice], solid: np.ndarray) -> bool:
        covered = np.bincount(self.owner[here][solid], minlength=len(self.pixels))
        for number in np.flatnonzero(covered[1:]) + 1:
            left_over = np.count_nonzero(self.owner == number) - covered[number]
            if left_over < self.min_visible * self.pixels[number]:
                return False
        return True

    def finish(self) -> tuple[np.ndarray, list[Labelled]]:
        """Add sensor noise. Returns the uint8 BGR image and its labels."""
        sigma = 1 + 7 * self.settings.difficulty
        self.image += self.rng.standard_normal((self.height, self.width, 1), dtype=np.float32) * np.float32(sigma)
        labels = []
        for number, cls in enumerate(self.classes, start=1):
            visible = (self.owner == number).astype(np.uint8)
            x, y, width, height = cv2.boundingRect(visible)
            labels.append(Labelled(cls, (x, y, width, height), cv2.countNonZero(visible)))
        return np.clip(self.image, 0, 255, out=self.image).astype(np.uint8), labels


def draw_image(settings: Settings, split: str, index: int) -> tuple[dict[str, object], list[Labelled]]:
    """Draw and write one image and its label file.

    Returns:
        The image's entry in COCO's ``images`` list, and its labels.
    """
    cv2.setNumThreads(1)  # the pool has one process per core
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])  # nothing else decides on the image
    canvas = Canvas(rng, settings)
    for _ in range(max(1, rng.poisson(settings.objects))):
        canvas.add()
    image, labels = canvas.finish()
    number = FIRST_ID[split] + index
    name = f"{number:012d}"
    height, width = image.shape[:2]
    path = settings.out / "images" / split / f"{name}.jpg"
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        raise OSError(f"{path} cannot be written")
    lines = []
    for cls, (x, y, w, h), _ in labels:
        lines.append(f"{cls} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n")
    (settings.out / "labels" / split / f"{name}.txt").write_text("".join(lines))
    return {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height}, labels


def coco_annotations(drawn: Sequence[tuple[dict[str, object], list[Labelled]]], names: Sequence[str]) -> dict:
    """COCO's ``instances`` dictionary. Category ids are class indices, as upstream's --save-json writes them."""
    annotations: list[dict[str, object]] = []
    for entry, labels in drawn:
        for cls, box, area in labels:
            # ids start at 1: pycocotools reads annotation id 0 as "no match"
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": entry["id"],
                    "category_id": cls,
                    "bbox": list(box),
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return {"images": [entry for entry, _ in drawn], "annotations": annotations, "categories": categories}


def draw_dataset(
    out: str | Path,
    train: int = 200,
    val: int = 60,
    size: int = 320,
    classes: int = 6,
    objects: int = 6,
    seed: int = 0,
    difficulty: float = 0.5,
    workers: int | None = None,
    largest: float = 0.5,
) -> Path:
    """Draw a data set. Many parameters: those of the command line.

    Args:
        out: folder to write to; new or empty.
        train: number of training images.
        val: number of validation images.
        size: long side of the images in pixels.
        classes: 1 to ``MAX_CLASSES``.
        objects: mean number of objects per image.
        seed: the same seed gives the same files, whatever ``workers`` is.
        difficulty: 0 to 1.
        workers: processes (None: one per core).
        largest: diameter of the largest objects as a fraction of ``size``; the smallest have 0.12 to 0.05, depending on
            ``difficulty``.

    Returns:
        The path of data.yaml.

    Raises:
        ValueError: an argument is out of range, or ``out`` is not empty.
    """
    settings = Settings(Path(out).resolve(), size, classes, objects, seed, difficulty, largest)
    check(settings, train, val)
    out, names = settings.out, class_names(classes)
    (out / "annotations").mkdir(parents=True)
    # OpenCV's threads do not survive a fork: a child of a process that has used them would wait for ever
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for split, count in zip(SPLITS, (train, val)):
            (out / "images" / split).mkdir(parents=True)
            (out / "labels" / split).mkdir(parents=True)
            drawn = pool.map(functools.partial(draw_image, settings, split), range(count), chunksize=8)
            paths = [f"./images/{split}/{entry['file_name']}\n" for entry, _ in drawn]
            (out / f"{split}.txt").write_text("".join(paths))
    annotations = coco_annotations(drawn, names)  # of the last split, val2017
    (out / "annotations" / "instances_val2017.json").write_text(json.dumps(annotations))
    return write_data_yaml(out, names)


def write_data_yaml(out: Path, names: list[str]) -> Path:
    """Write data.yaml, and return its path."""
    # yolov5 joins path and train, yolov7 takes train as it is: absolute paths suit both; JSON strings are YAML strings
    entries = {
        "path": str(out),
        "train": str(out / "train2017.txt"),
        "val": str(out / "val2017.txt"),
        "nc": len(names),
        "names": names,
    }
    data = out / "data.yaml"
    data.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items()))
    return data


def check(settings: Settings, train: int, val: int) -> None:
    """Raise a ValueError for an argument of ``draw_dataset`` that is out of range."""
    out, size, classes, objects, _, difficulty, largest = settings
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"--classes {classes}: give 1 to {MAX_CLASSES}")
    if size < 64 or train < 1 or val < 1 or objects < 1:
        raise ValueError("--size must be at least 64, --train, --val and --objects at least 1")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"--difficulty {difficulty}: give 0 to 1")
    if not 0.15 <= largest <= 0.9:
        raise ValueError(f"--largest {largest}: give 0.15 to 0.9")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not an empty folder: remove it or name another one")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and draw. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", help="folder to write to; new or empty")
    parser.add_argument("--train", type=int, default=200, help="images to train on (default: %(default)s)")
    parser.add_argument("--val", type=int, default=60, help="images to evaluate on (default: %(default)s)")
    parser.add_argument("--size", type=int, default=320, help="long side in pixels (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=6, help=f"1 to {MAX_CLASSES} (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=6, help="mean objects per image (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--difficulty",
        type=float,
        default=0.5,
        help="0 to 1: clutter, noise, rotation, occlusion, small objects, low contrast (default: %(default)s)",
    )
    parser.add_argument(
        "--largest",
        type=float,
        default=0.5,
        help="diameter of the largest objects, as a fraction of --size (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per core)")
    try:
        print(draw_dataset(**vars(parser.parse_args(argv))))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
