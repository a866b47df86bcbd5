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
from typing import Sequence

from shape_classes import MAX_CLASSES, class_names
from shape_images import SPLITS, Labelled, Settings, draw_image


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
