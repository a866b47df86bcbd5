"""COCO JSON files of other tools: ids, categories, annotations, and the file itself."""

from __future__ import annotations

import json
from typing import Any

import cv2

from support.drawn_data import SIDE, Drawn, Table

TABLE = Table()
JSON = r"instances_val2017\.json"
case = TABLE.case


def entries(drawn: Drawn) -> list[dict[str, Any]]:
    """The JSON's annotations."""
    return drawn.json["annotations"]


# --- ids --------------------------------------------------------------------------------------------------------------


@case()
def annotation_ids_from_0(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["id"] -= 1


@case()
def annotation_ids_all_equal(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["id"] = 1


@case()
def no_annotation_ids(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        del annotation["id"]


def change_image_ids(drawn: Drawn, change: Any) -> None:
    for image in drawn.json["images"]:
        image["id"] = change(image["id"])
    for annotation in entries(drawn):
        annotation["image_id"] = change(annotation["image_id"])


@case()
def image_ids_are_text(drawn: Drawn) -> None:
    change_image_ids(drawn, lambda number: f"frame-{number}")


@case()
def image_ids_beyond_floats(drawn: Drawn) -> None:
    change_image_ids(drawn, lambda number: 2**64 + number)


@case()
def image_ids_from_0(drawn: Drawn) -> None:
    change_image_ids(drawn, lambda number: number - 1)


@case()
def image_ids_of_several_types(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["image_id"] = str(annotation["image_id"])


@case(f"{JSON}: the image id 1 stands for two images, 000.png and 001.png")
def image_ids_all_equal(drawn: Drawn) -> None:
    change_image_ids(drawn, lambda _: 1)


@case()
def category_ids_are_text(drawn: Drawn) -> None:
    for category in drawn.json["categories"]:
        category["id"] = f"c{category['id']}"
    for annotation in entries(drawn):
        annotation["category_id"] = f"c{annotation['category_id']}"


# --- categories -------------------------------------------------------------------------------------------------------


@case(forms=("data",))
def categories_in_another_order(drawn: Drawn) -> None:
    for category in drawn.json["categories"]:
        category["id"] = 4 - category["id"]
    for annotation in entries(drawn):
        annotation["category_id"] = 4 - annotation["category_id"]


@case(forms=("data",))
def categories_in_another_order_and_case(drawn: Drawn) -> None:
    categories_in_another_order_ = TABLE["categories_in_another_order"].change
    categories_in_another_order_(drawn)
    for category in drawn.json["categories"]:
        category["name"] = category["name"].title()


@case()
def categories_listed_backwards(drawn: Drawn) -> None:
    drawn.json["categories"].reverse()


@case()
def parent_category_without_entries(drawn: Drawn) -> None:
    drawn.json["categories"] = [
        {"id": 0, "name": "insects", "supercategory": "none"},
        *({**category, "supercategory": "insects"} for category in drawn.json["categories"]),
    ]


@case(forms=("data",))
def unused_class_not_listed(drawn: Drawn) -> None:
    drawn.yaml["names"] = ["ant", "bee", "cat"]
    for name, things in drawn.things.items():  # paint every bee black
        image = drawn.pixels(name)
        for thing in things:
            if thing.label == 1:
                image[thing.y : thing.y + thing.h, thing.x : thing.x + thing.w] = 0
        cv2.imwrite(str(drawn.val / name), image)
    drawn.json["annotations"] = [entry for entry in entries(drawn) if entry["category_id"] != 2]
    del drawn.json["categories"][1]


@case(f"{JSON} has bee as category number 1", forms=("data",))
def names_that_contradict_the_order(drawn: Drawn) -> None:
    for category, name in zip(drawn.json["categories"], ("bee", "dog", "cat")):
        category["name"] = name


@case(f"{JSON} has 80 classes, the model has 3")
def eighty_categories(drawn: Drawn) -> None:
    drawn.json["categories"] = [{"id": number, "name": f"thing {number}"} for number in range(1, 81)]


@case(says="has 80 classes, the model has 3.*label files are used instead", truth="both")
def eighty_categories_beside_labels(drawn: Drawn) -> None:
    drawn.json["categories"] = [{"id": number, "name": f"thing {number}"} for number in range(1, 81)]


@case(says="all classes of .* are merged", one_class=True)
def single_cls(drawn: Drawn) -> None:
    pass


@case(f"{JSON}: annotation number 1 is of category 9")
def annotation_of_unknown_category(drawn: Drawn) -> None:
    entries(drawn)[0]["category_id"] = 9


# --- annotations ------------------------------------------------------------------------------------------------------


@case()
def no_iscrowd_and_no_area(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        del annotation["iscrowd"], annotation["area"]


@case()
def iscrowd_and_area_are_null(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["iscrowd"] = annotation["area"] = None


@case()
def a_crowd_that_nothing_finds(drawn: Drawn) -> None:
    entries(drawn).append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1})


@case()
def polygons_instead_of_boxes(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        x, y, w, h = annotation.pop("bbox")
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


@case()
def masks_instead_of_boxes(drawn: Drawn) -> None:
    import numpy as np
    from pycocotools import mask as masks

    for number, annotation in enumerate(entries(drawn)):
        x, y, w, h = annotation.pop("bbox")
        image = np.zeros((SIDE, SIDE), np.uint8, order="F")
        image[y : y + h, x : x + w] = 1
        code = masks.encode(image)
        annotation["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        if number % 2:  # the form without compression
            flat = image.flatten(order="F")
            ends = [*(np.flatnonzero(np.diff(flat)) + 1), flat.size]
            annotation["segmentation"]["counts"] = [int(length) for length in np.diff([0, *ends])]


@case(f"{JSON}: annotation number 2 has no bbox")
def neither_box_nor_outline(drawn: Drawn) -> None:
    del entries(drawn)[1]["bbox"]


@case(f"{JSON}: annotation number 1: bbox .* is not four numbers")
def boxes_are_text(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["bbox"] = [str(side) for side in annotation["bbox"]]


@case(f"{JSON}: annotation number 4: bbox .* is not four numbers")
def box_is_not_finite(drawn: Drawn) -> None:
    entries(drawn)[3]["bbox"][2] = float("nan")


@case(f"{JSON}: annotation number 4: bbox .* negative side")
def box_is_negative(drawn: Drawn) -> None:
    entries(drawn)[3]["bbox"][2] *= -1


@case(f"{JSON}: .* boxes leave their images: bbox must be x, y, width, height")
def boxes_are_corners(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]


@case(f"{JSON}: no box is larger than a pixel")
def boxes_are_relative(drawn: Drawn) -> None:
    for annotation in entries(drawn):
        annotation["bbox"] = [side / SIDE for side in annotation["bbox"]]


@case(says="1 annotations of .* have a width or height of 0 and are left out")
def empty_box(drawn: Drawn) -> None:
    entries(drawn).append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [3, 3, 0, 9], "iscrowd": 0})


@case(says="1 annotations of .* belong to images that it does not list and are left out")
def annotation_of_unknown_image(drawn: Drawn) -> None:
    entries(drawn).append({"id": 99, "image_id": 77, "category_id": 1, "bbox": [3, 3, 9, 9], "iscrowd": 0})


@case(f"{JSON}: entry number 1 of annotations is no object")
def annotation_is_null(drawn: Drawn) -> None:
    drawn.json["annotations"].insert(0, None)


# --- the file ---------------------------------------------------------------------------------------------------------


@case()
def byte_order_mark(drawn: Drawn) -> None:
    drawn.json = b"\xef\xbb\xbf" + json.dumps(drawn.json).encode()


@case(f"{JSON} is not UTF-8")
def gbk(drawn: Drawn) -> None:
    drawn.json["info"] = "蚂蚁"
    drawn.json = json.dumps(drawn.json, ensure_ascii=False).encode("gbk")


@case()
def utf_16(drawn: Drawn) -> None:
    drawn.json = json.dumps(drawn.json).encode("utf-16")


@case(f"{JSON} is (no|not valid) JSON")
def cut_off(drawn: Drawn) -> None:
    drawn.json = json.dumps(drawn.json).encode()[:-9]


@case(f"{JSON} lacks images: it is no COCO annotation file")
def list_of_results(drawn: Drawn) -> None:
    drawn.json = entries(drawn)


@case(f"{JSON} lacks annotations")
def image_information_only(drawn: Drawn) -> None:
    del drawn.json["annotations"]


@case("no box at all")
def no_entries(drawn: Drawn) -> None:
    drawn.json["annotations"] = []


@case(says="no box at all.*label files are used instead", truth="both")
def no_annotations_beside_labels(drawn: Drawn) -> None:
    drawn.json["annotations"] = []
