"""More data sets of users: pictures of other kinds, odd names, rows as some tools write them."""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

import cv2
import numpy as np

from support.drawn_data import CAMERAS, PLAIN, Drawn, Table

TABLE = Table()
JSON = r"instances_val2017\.json"
case = TABLE.case


def rewrite_rows(drawn: Drawn, change: Any) -> None:
    for name in PLAIN:
        drawn.label(name).write_text("".join(f"{change(row)}\n" for row in drawn.rows(name)))


# --- pictures ---------------------------------------------------------------------------------------------------------


@case()
def pictures_of_16_bits(drawn: Drawn) -> None:
    for name in PLAIN:
        cv2.imwrite(str(drawn.val / name), drawn.pixels(name).astype(np.uint16) * 257)


@case()
def pictures_with_transparency(drawn: Drawn) -> None:
    for name in PLAIN:
        cv2.imwrite(
            str(drawn.val / name), np.dstack((drawn.pixels(name), np.full(drawn.pixels(name).shape[:2], 9, "u1")))
        )


@case()
def pictures_with_a_palette(drawn: Drawn) -> None:
    from PIL import Image

    for name in PLAIN:
        with Image.open(drawn.val / name) as image:
            paletted = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
        paletted.save(drawn.val / name)


@case(files=[name.replace("png", "webp") for name in PLAIN])
def pictures_without_loss_in_webp(drawn: Drawn) -> None:
    for name in drawn.things:  # drawn.draw wrote them with losses
        pixels = np.zeros((*drawn.pixels(name).shape[:2], 3), np.uint8)
        for thing in drawn.things[name]:
            from support.perfect_detector import colour

            slot = 2 * (thing.y >= pixels.shape[0] // 2) + (thing.x >= 32)
            pixels[thing.y : thing.y + thing.h, thing.x : thing.x + thing.w] = colour(thing.label, slot)[::-1]
        cv2.imwrite(str(drawn.val / name), pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])


@case(truth="labels", images=9)
def grey_picture_without_objects(drawn: Drawn) -> None:
    cv2.imwrite(str(drawn.val / "grey.png"), np.zeros((48, 64), np.uint8))


# --- names ------------------------------------------------------------------------------------------------------------


@case(files=[f"a b%20#{name}" for name in PLAIN])
def names_with_blanks_and_signs(drawn: Drawn) -> None:
    drawn.write_list([f"images/val2017/{name}" for name in drawn.things])


@case(files=[name.replace("0", "0.") for name in PLAIN])
def names_with_dots(drawn: Drawn) -> None:
    pass


@case(truth="labels", files=[name.replace("0", "0.") for name in PLAIN])
def names_with_dots_with_labels(drawn: Drawn) -> None:
    for name in drawn.things:
        assert drawn.label(name).is_file()


@case(files=[*(f"a{name}" for name in PLAIN[:4]), *(f"A{name}" for name in PLAIN[:4])])
def names_that_differ_in_case(drawn: Drawn) -> None:
    pass


@case(f"{JSON}: image number 1 .*has no file_name")
def names_are_numbers(drawn: Drawn) -> None:
    for number, image in enumerate(drawn.json["images"]):
        image["file_name"] = number


@case()
def links_to_pictures(drawn: Drawn) -> None:
    (drawn.root / "elsewhere").mkdir()
    for number, name in enumerate(PLAIN):
        (drawn.val / name).rename(drawn.root / "elsewhere" / f"{number}.x.png")
        (drawn.val / name).symlink_to(drawn.root / "elsewhere" / f"{number}.x.png")


@case(truth="labels", files=CAMERAS)
def folder_called_as_a_picture(drawn: Drawn) -> None:
    for part in (drawn.val, drawn.labels):
        (part / "cam2").rename(part / "cam2.png")


@case(truth="labels", forms=("data",))
def images_twice_in_the_path(drawn: Drawn) -> None:
    for kind in ("images", "labels"):
        (drawn.root / "images" / "set" / kind).mkdir(parents=True)
        (drawn.root / kind / "val2017").rename(drawn.root / "images" / "set" / kind / "val2017")
    drawn.yaml["val"] = "images/set/images/val2017"


@case(truth="labels", forms=("data",))
def labels_beside_the_pictures(drawn: Drawn) -> None:
    drawn.val.rename(drawn.root / "frames")
    for label in drawn.labels.iterdir():
        label.rename(drawn.root / "frames" / label.name)
    drawn.yaml["val"] = "frames/"


@case(r"labels.val2017.000\.txt", truth="labels")
def labels_in_capitals(drawn: Drawn) -> None:
    for label in list(drawn.labels.iterdir()):
        label.rename(label.with_suffix(".TXT"))


# --- rows -------------------------------------------------------------------------------------------------------------


@case(truth="labels")
def rows_with_tabs_and_exponents(drawn: Drawn) -> None:
    rewrite_rows(drawn, lambda row: " \t" + "\t".join(f"{float(word):.8e}" for word in row.split()) + " ")


@case("none of 8 images can be used .* is not a row of numbers", truth="labels")
def rows_with_commas(drawn: Drawn) -> None:
    rewrite_rows(drawn, lambda row: row.replace(" ", ","))


@case("none of 8 images can be used .* 6 numbers", truth="labels")
def rows_with_scores(drawn: Drawn) -> None:
    rewrite_rows(drawn, lambda row: f"{row} 0.97")


@case("none of 8 images can be used", truth="labels")
def rows_in_pixels(drawn: Drawn) -> None:
    rewrite_rows(drawn, lambda row: " ".join([row[0], *(str(float(word) * 64) for word in row.split()[1:])]))


@case(r"class 3 is out of range", truth="labels")
def classes_from_1(drawn: Drawn) -> None:
    rewrite_rows(drawn, lambda row: f"{int(row[0]) + 1}{row[1:]}")


# --- lists and data.yaml ----------------------------------------------------------------------------------------------


@case(r"images.val2017.000\.png, which does not exist")
def list_with_backslashes(drawn: Drawn) -> None:
    drawn.write_list([f".\\images\\val2017\\{name}" for name in PLAIN])


@case(forms=("data",))
def several_lists(drawn: Drawn) -> None:
    for number, part in enumerate((PLAIN[:4], PLAIN[2:])):
        lines = [f"{os.path.join(drawn.val, name)}\n" for name in part]
        (drawn.root / f"part{number}.txt").write_text("".join(lines))
    drawn.yaml["val"] = ["part0.txt", "part1.txt"]


@case(r"val: there is no .*/images/val\* and no", forms=("data",))
def pattern_instead_of_a_folder(drawn: Drawn) -> None:
    drawn.yaml["val"] = "images/val*"


@case(r"000\.png is not UTF-8 text|000\.png has NUL", forms=("data",))
def picture_instead_of_a_folder(drawn: Drawn) -> None:
    drawn.yaml["val"] = "images/val2017/000.png"


@case(truth="labels", forms=("data",))
def two_classes_of_one_name(drawn: Drawn) -> None:
    drawn.yaml["names"] = ["ant", "ant", "cat"]


# --- JSON -------------------------------------------------------------------------------------------------------------


@case(says=r"annotations of .*json repeat others and are left out")
def annotations_twice(drawn: Drawn) -> None:
    repeated = [{**annotation, "id": 900 + annotation["id"]} for annotation in drawn.json["annotations"][:6]]
    drawn.json["annotations"] += repeated


@case(f"{JSON} lists two images that .*000\\.png may be")
def image_listed_under_two_ids(drawn: Drawn) -> None:
    drawn.json["images"].append({**drawn.json["images"][0], "id": 99})


@case("no box at all")
def crowds_alone(drawn: Drawn) -> None:
    for annotation in drawn.json["annotations"]:
        annotation["iscrowd"] = 1


@case("no box at all|none of")
def image_ids_are_stems(drawn: Drawn) -> None:
    for annotation in drawn.json["annotations"]:
        annotation["image_id"] = PLAIN[annotation["image_id"] - 1]


@case()
def numbers_as_floats(drawn: Drawn) -> None:
    for annotation in drawn.json["annotations"]:
        annotation["image_id"], annotation["category_id"] = (
            float(annotation["image_id"]),
            float(annotation["category_id"]),
        )
    for image in drawn.json["images"]:
        image["height"], image["width"] = float(image["height"]), str(image["width"])


@case(f"{JSON}: annotation number 1: bbox .* is not four numbers")
def boxes_with_an_angle(drawn: Drawn) -> None:
    for annotation in drawn.json["annotations"]:
        annotation["bbox"].append(30)


@case(f"{JSON} is not UTF-8")
def packed(drawn: Drawn) -> None:
    drawn.json = gzip.compress(json.dumps(drawn.json).encode())


@case(f"{JSON} is (no|not valid) JSON|{JSON} is no JSON")
def one_object_per_line(drawn: Drawn) -> None:
    drawn.json = "\n".join(json.dumps(entry) for entry in drawn.json["annotations"]).encode()


@case(f"{JSON}: the category id 1 stands for two")
def category_ids_all_equal(drawn: Drawn) -> None:
    for category in drawn.json["categories"]:
        category["id"] = 1
