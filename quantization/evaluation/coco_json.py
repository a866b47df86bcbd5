"""A COCO annotation JSON as some tool wrote it, checked and normalised: all ids comparable, all defaults filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from quantization.errors import UserError
from quantization.evaluation.categories import Category
from quantization.evaluation.coco_boxes import annotation_box

NAME_KEYS = ("file_name", "filename", "path", "coco_url")  # the first that an image has tells its file
CROWD = {0: False, 1: True, "0": False, "1": True, None: False}  # JSON's true and false equal 1 and 0


@dataclass(frozen=True)
class Image:
    """One image of a JSON.

    Attributes:
        key: its id, in the form that ids are compared in.
        name: its file name, with or without folders.
        size: height and width; None if the JSON does not tell.
    """

    key: str
    name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Box:
    """One annotation.

    Attributes:
        category: key of its category.
        box: left, top, width, height in pixels.
        crowd: whether it stands for a group of objects; detections in it count neither way.
    """

    category: str
    box: tuple[float, float, float, float]
    crowd: bool


@dataclass(frozen=True)
class CocoJson:
    """The content of a COCO annotation JSON.

    Attributes:
        file: where it lies, for messages.
        images: each once.
        categories: each once, in the order of their ids.
        by_image: annotations as they are in the file, by image key.
        strays: number of annotations whose image the JSON does not list.
    """

    file: Path
    images: list[Image]
    categories: list[Category]
    by_image: dict[str, list[tuple[int, Mapping[str, Any]]]]
    strays: int

    def boxes(self, image: str) -> Iterator[Box]:
        """The annotations of one image.

        Raises:
            UserError: one is damaged, or of an unknown category.
        """
        known = {category.key for category in self.categories}
        for number, annotation in self.by_image.get(image, []):
            where = f"{self.file}: annotation number {number}"
            category = _key(annotation.get("category_id"), f"{where}: category_id")
            if category not in known:
                raise UserError(f"{where} is of category {category}, which categories does not list")
            crowd = annotation.get("iscrowd")
            if isinstance(crowd, (dict, list)) or crowd not in CROWD:
                raise UserError(f"{where}: iscrowd is {crowd!r}, not 0 or 1")
            yield Box(category, annotation_box(annotation, where), CROWD[crowd])


def read_coco(file: Path) -> CocoJson:
    """Read a COCO annotation JSON.

    Raises:
        UserError: it cannot be read, lacks a part, or ids or names are missing or not unique.
    """
    content = _load(file)
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("images", "annotations", "categories"):
        part = content.get(name) if isinstance(content, dict) else None
        if not isinstance(part, list):
            raise UserError(f"{file} lacks {name}: it is no COCO annotation file")
        damaged = next((number for number, entry in enumerate(part, 1) if not isinstance(entry, dict)), None)
        if damaged is not None:
            raise UserError(f"{file}: entry number {damaged} of {name} is no object: it is no COCO annotation file")
        parts[name] = part
    images = {image.key: image for image in _images(parts["images"], file)}
    by_image: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    strays = 0
    for number, annotation in enumerate(parts["annotations"], 1):
        key = _key(annotation.get("image_id"), f"{file}: image_id of annotation number {number}")
        if key in images:
            by_image.setdefault(key, []).append((number, annotation))
        else:
            strays += 1
    return CocoJson(file, list(images.values()), _categories(parts["categories"], file), by_image, strays)


def _load(file: Path) -> Any:
    """What a JSON file holds, in UTF-8, 16 or 32, with or without a byte-order mark."""
    try:
        return json.loads(file.read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: save it in this encoding") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is no JSON file: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _key(value: object, what: str) -> str:
    """An id in the form that ids are compared in: 7, 7.0 and "7" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{what} is missing or no id ({str(value)[:40]})")


def _images(entries: list[dict[str, Any]], file: Path) -> Iterator[Image]:
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        key = _key(entry.get("id"), f"{file}: id of image number {number}")
        name = next((entry[part] for part in NAME_KEYS if entry.get(part)), None)
        if not isinstance(name, str):
            raise UserError(f"{file}: image number {number} (id {key}) has no file_name")
        if names.setdefault(key, name) != name:
            raise UserError(f"{file}: the image id {key} stands for two images, {names[key]} and {name}")
        sides = (entry.get("height"), entry.get("width"))
        height, width = (side if type(side) is int and side > 0 else None for side in sides)
        yield Image(key, name, (height, width) if height and width else None)


def _categories(entries: list[dict[str, Any]], file: Path) -> list[Category]:
    found: dict[str, Category] = {}
    for number, entry in enumerate(entries, 1):
        key = _key(entry.get("id"), f"{file}: id of category number {number}")
        category = Category(key, str(entry.get("name", key)), str(entry.get("supercategory") or ""))
        if found.setdefault(key, category) != category:
            raise UserError(f"{file}: the category id {key} stands for two, {found[key].name} and {category.name}")
    numbers = [_number(key) for key in found]
    if None in numbers:  # names as ids: their order in the file
        return list(found.values())
    return [category for _, category in sorted(zip(numbers, found.values()), key=lambda pair: pair[0] or 0)]


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
