"""Label files, missing ground truth, lists and folders, and text in other encodings."""

from __future__ import annotations

import codecs
import shutil

import yaml

from support.drawn_data import CAMERAS, PLAIN, Drawn, Table

TABLE = Table()
case = TABLE.case


# --- label files ------------------------------------------------------------------------------------------------------


@case(truth="labels")
def sound_labels(drawn: Drawn) -> None:
    pass


@case(truth="labels", files=CAMERAS)
def two_cameras_with_labels(drawn: Drawn) -> None:
    pass


@case(truth="labels", images_yolov7=5)  # which leaves such images out
def duplicate_rows(drawn: Drawn) -> None:
    for name in PLAIN[:3]:
        drawn.write_label(name, drawn.rows(name)[:1] * 2)


@case(truth="labels", images=7)
def row_out_of_range(drawn: Drawn) -> None:
    drawn.write_label("002.png", ["0 0.5 1.5 0.1 0.1"])


@case(truth="labels", images=6)
def rows_malformed(drawn: Drawn) -> None:
    drawn.write_label("002.png", ["0 0.5 0.5 0.1"])
    drawn.write_label("004.png", ["ant 0.5 0.5 0.1 0.1"])


@case(r"class 3\b", truth="labels")
def class_out_of_range(drawn: Drawn) -> None:
    for name in PLAIN:
        drawn.write_label(name, ["3 0.5 0.5 0.1 0.1"])


@case(truth="labels")
def polygons(drawn: Drawn) -> None:
    for name in PLAIN:
        rows = []
        for row in drawn.rows(name):
            label, x, y, w, h = map(float, row.split())
            left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            corners = (left, top, right, top, right, bottom, left, bottom)
            rows.append(f"{int(label)} " + " ".join(f"{value:.8f}" for value in corners))
        drawn.label(name).write_text("\n".join(rows))


@case(truth="labels", says="all classes of .* are merged", one_class=True)
def single_cls_labels(drawn: Drawn) -> None:
    pass


@case(truth="labels")
def windows_line_ends_and_blank_lines(drawn: Drawn) -> None:
    for name in PLAIN:
        drawn.write_label(name, ["", " "], "\r\n")


@case(truth="labels")
def label_with_byte_order_mark(drawn: Drawn) -> None:
    for name in PLAIN:
        drawn.label(name).write_bytes(codecs.BOM_UTF8 + drawn.label(name).read_bytes())


@case(truth="labels", images=9)
def image_without_objects(drawn: Drawn) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(drawn.val / "empty.png"), np.zeros((48, 64, 3), np.uint8))


# --- no ground truth --------------------------------------------------------------------------------------------------


@case(r"labels.val2017.000\.txt", truth="labels")
def misspelt_folder(drawn: Drawn) -> None:
    (drawn.root / "labels").rename(drawn.root / "Labels")


@case(r"labels.val2017.000\.txt", truth="labels")
def no_labels(drawn: Drawn) -> None:
    drawn.without_labels()


@case(r"JPEGImages.val.000\.txt", truth="labels", forms=("data",))
def folder_of_voc(drawn: Drawn) -> None:
    (drawn.root / "JPEGImages").mkdir()
    drawn.val.rename(drawn.root / "JPEGImages" / "val")
    drawn.yaml["val"] = "JPEGImages/val"


@case("no box at all", truth="labels")
def all_labels_empty(drawn: Drawn) -> None:
    for name in PLAIN:
        drawn.label(name).write_text("")


# --- lists and folders ------------------------------------------------------------------------------------------------


@case(truth="labels", files=CAMERAS)
def symlinked_folder(drawn: Drawn) -> None:
    for part in (drawn.val, drawn.labels):
        (part / "cam2").rename(drawn.root / f"elsewhere-{part.parent.name}")
        (part / "cam2").symlink_to(drawn.root / f"elsewhere-{part.parent.name}", target_is_directory=True)


@case(truth="labels")
def hidden_files(drawn: Drawn) -> None:
    for name in PLAIN[:3]:
        (drawn.val / f"._{name}").write_bytes(b"\0\5\x16\7 no image")


@case(truth="labels", forms=("data",))
def export_of_roboflow(drawn: Drawn) -> None:
    for source, target in (("images/val2017", "valid/images"), ("labels/val2017", "valid/labels")):
        (drawn.root / target).parent.mkdir(exist_ok=True)
        (drawn.root / source).rename(drawn.root / target)
    (drawn.root / "train").mkdir()
    (drawn.root / "images" / "train2017").rename(drawn.root / "train" / "images")
    drawn.yaml.update(train="../train/images", val="../valid/images")
    del drawn.yaml["path"]


@case(truth="labels", files=[name.replace("png", "PNG") for name in PLAIN])
def capital_suffix(drawn: Drawn) -> None:
    pass


@case(truth="labels")
def other_files_among_the_images(drawn: Drawn) -> None:
    (drawn.val / "notes.txt").write_text("nothing")
    (drawn.val / "Thumbs.db").write_bytes(b"\0")


@case()
def list_with_byte_order_mark(drawn: Drawn) -> None:
    drawn.write_list([f"./images/val2017/{name}" for name in PLAIN], encoding="utf-8-sig")


@case()
def list_of_windows(drawn: Drawn) -> None:
    drawn.write_list([f"./images/val2017/{name}" for name in PLAIN] + [""], "{}\r\n")


@case(r"none\.png, which does not exist")
def list_of_missing_images(drawn: Drawn) -> None:
    drawn.write_list(["./images/val2017/000.png", "./images/val2017/none.png"])


@case("lists no images|no image")
def empty_folder(drawn: Drawn) -> None:
    shutil.rmtree(drawn.val)
    drawn.val.mkdir()


# --- text -------------------------------------------------------------------------------------------------------------


@case(forms=("data",))
def yaml_with_byte_order_mark(drawn: Drawn) -> None:
    drawn.yaml = codecs.BOM_UTF8 + yaml.safe_dump(drawn.yaml).encode()


@case(forms=("data",))
def yaml_in_utf_16(drawn: Drawn) -> None:
    drawn.yaml = yaml.safe_dump(drawn.yaml).encode("utf-16")


@case(r"data\.yaml.*UTF-8", forms=("data",))
def yaml_in_gbk(drawn: Drawn) -> None:
    drawn.yaml["names"] = ["蚂蚁", "蜜蜂", "猫"]
    drawn.yaml = yaml.safe_dump(drawn.yaml, allow_unicode=True).encode("gbk")


@case(r"val2017\.txt.*UTF-8")
def list_in_latin_1(drawn: Drawn) -> None:
    drawn.write_list(["images/val2017/é.png"], encoding="latin-1")


@case(r"data\.yaml.*nc", forms=("data",))
def count_of_classes_is_a_word(drawn: Drawn) -> None:
    drawn.yaml["nc"] = "three"


@case(r"data\.yaml.*nc: 4", forms=("data",))
def count_of_classes_differs(drawn: Drawn) -> None:
    drawn.yaml["nc"] = 4


@case(r"data\.yaml.*names", forms=("data",))
def names_is_a_number(drawn: Drawn) -> None:
    drawn.yaml["names"] = 3


@case(r"data\.yaml.*names", forms=("data",))
def names_is_a_word(drawn: Drawn) -> None:
    drawn.yaml["names"] = "ant"


@case(r"data\.yaml.*names", forms=("data",))
def names_with_mixed_keys(drawn: Drawn) -> None:
    drawn.yaml["names"] = {0: "ant", "b": "bee", 2: "cat"}


@case(forms=("data",))
def names_are_a_mapping(drawn: Drawn) -> None:
    drawn.yaml["names"] = {2: "cat", 0: "ant", 1: "bee"}


@case("has 2 classes, the model has 3", forms=("data",), truth="both")
def fewer_names_than_classes(drawn: Drawn) -> None:
    drawn.yaml.update(names=["ant", "bee"], nc=2)
