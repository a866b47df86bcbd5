"""Which image of the data set an entry of the JSON is."""

from __future__ import annotations

import unicodedata

from support.drawn_data import CAMERAS, PLAIN, SIDE, Drawn, Table

TABLE = Table()
JSON = r"instances_val2017\.json"
case = TABLE.case


@case()
def sound(drawn: Drawn) -> None:
    pass


@case(files=CAMERAS)
def two_cameras(drawn: Drawn) -> None:
    pass


@case(rf"{JSON} lists two images that .*cam1.000\.png may be, 000\.png \(entry 1\) and 000\.png", files=CAMERAS)
def two_cameras_without_folders(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: name.split("/")[1])


@case(says="label files are used instead", files=CAMERAS, truth="both")
def two_cameras_without_folders_beside_labels(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: name.split("/")[1])


@case(rf"{JSON} lists 000\.png once, but .*cam1.000\.png and .*cam2.000\.png", files=CAMERAS)
def one_entry_for_two_cameras(drawn: Drawn) -> None:
    drawn.json["images"] = drawn.json["images"][:4]
    drawn.rename_images(lambda name: name.split("/")[1])


@case(files=[*PLAIN[:4], *(name.replace("png", "bmp") for name in PLAIN[:4])])
def png_beside_bmp(drawn: Drawn) -> None:
    pass


@case()
def image_listed_twice(drawn: Drawn) -> None:
    drawn.write_list([f"images/val2017/{name}" for name in [*PLAIN, *PLAIN[2:5]]])


@case(truth="labels")
def image_listed_twice_with_labels(drawn: Drawn) -> None:
    drawn.write_list([f"images/val2017/{name}" for name in [*PLAIN[2:5], *PLAIN]])


@case(files=CAMERAS, forms=("data",))
def overlapping_folders(drawn: Drawn) -> None:
    drawn.yaml["val"] = ["images/val2017", "images/val2017/cam2"]


@case(files=CAMERAS)
def absolute_names_of_another_machine(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: f"/home/someone/frames/{name}")


@case(files=CAMERAS)
def names_with_backslashes(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: "C:\\data\\" + name.replace("/", "\\"))


@case(files=CAMERAS)
def names_from_here(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: f"./val2017/./{name}")


@case(files=CAMERAS)
def names_in_another_case(drawn: Drawn) -> None:
    drawn.rename_images(str.upper)


@case()
def names_with_another_suffix(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: name.replace(".png", ".JPG"))


@case(files=[unicodedata.normalize("NFC", f"é{name}") for name in PLAIN])
def names_of_a_mac(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: unicodedata.normalize("NFD", name))


@case()
def addresses_instead_of_names(drawn: Drawn) -> None:
    for image in drawn.json["images"]:
        image["coco_url"] = f"http://images.example.org/val%20set/{image.pop('file_name')}?size=full"


@case(f"{JSON}: image number 3 .*has no file_name")
def no_name(drawn: Drawn) -> None:
    del drawn.json["images"][2]["file_name"]


@case()
def images_of_other_splits_listed_too(drawn: Drawn) -> None:
    for number, split in enumerate(("train2017", "test2017"), 100):
        name = f"{split}/000.png"
        drawn.json["images"].append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
        drawn.json["annotations"].append({"id": number, "image_id": number, "category_id": 1, "bbox": [1, 1, 5, 5]})
    drawn.json["images"][0]["file_name"] = "val2017/000.png"


@case(rf"{JSON} does not list .*000\.png")
def another_split(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: f"other-{name}")


@case(says=r"does not list .*000\.png.*label files are used", truth="both")
def another_split_beside_labels(drawn: Drawn) -> None:
    drawn.rename_images(lambda name: f"other-{name}")


@case(f"{JSON} says that .* has 128 x .* made for another image")
def images_made_smaller_after_annotation(drawn: Drawn) -> None:
    for image in drawn.json["images"]:
        image.update(width=2 * image["width"], height=2 * image["height"])


@case(says="height and width of 4 images the wrong way round")
def height_and_width_swapped(drawn: Drawn) -> None:
    for image in drawn.json["images"]:
        image.update(width=image["height"], height=image["width"])


@case()
def no_height_and_width(drawn: Drawn) -> None:
    for image in drawn.json["images"]:
        del image["width"], image["height"]
