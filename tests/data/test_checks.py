"""The check of a whole data set, against upstream's own readers over a folder of odd cases."""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from quantization.data.checks import Needs, check_channels, check_dataset
from quantization.data.dataset import Dataset, open_dataset
from quantization.data.labels import label_file, read_labels
from quantization.data.listing import find_images
from quantization.errors import UserError
from support.workflow import run_python

TASKS = Path(__file__).resolve().parents[1] / "support" / "data_tasks.py"
BOX = "0 0.5 0.5 0.2 0.2\n"
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
LABELS = {
    "plain": BOX + "2 0.25 0.125 0.5 0.25\n",
    "rounded": "1 0.33333333333 0.1 0.2 1.00000001\n",
    "exponent": "1e0 5e-1 .5 +0.25 0.1\n",
    "empty": "",
    "blank": "\n \n",
    "leading": "\n\n" + BOX,
    "between": BOX + "\n1 0.1 0.1 0.1 0.1\n",
    "spaces": BOX + "   \n1 0.1 0.1 0.1 0.1\n",
    "crlf": "0 0.5 0.5 0.2 0.2\r\n1 0.5 0.5 0.2 0.2\r\n",
    "double": BOX + "1 0.1 0.1 0.1 0.1\n" + BOX,
    "triangle": "1 0.1 0.2 0.5 0.2 0.5 0.6\n",
    "square": "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n2 0 0 1 0 1 1 0 1\n",
    "beyond": "1 -0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n",
    "far": "1 -0.1 0.2 0.05 0.2 0.05 0.6 -0.1 0.6\n",
    "odd": "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6 0.3\n",
    "bare": "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n1\n",
    "four": "0 0.5 0.5 0.2\n",
    "six": "0 0.5 0.5 0.2 0.2 0.9\n",
    "ragged": BOX + "0 0.5 0.5 0.2 0.2 0.9\n",
    "negative": "0 -0.5 0.5 0.2 0.2\n",
    "minus": "-1 0.5 0.5 0.2 0.2\n",
    "large": "0 0.5 1.0000002 0.2 0.2\n",
    "pixels": "0 30 20 10 10\n",
    "words": "person 0.5 0.5 0.2 0.2\n",
    "nan": "0 nan 0.5 0.2 0.2\n",
    "inf": "0 0.5 0.5 inf 0.2\n",
    "huge": "0 0.5 0.5 1e99 0.2\n",
    "comment": "# made by hand\n" + BOX,
    "commas": "0,0.5,0.5,0.2,0.2\n",
}


def write_picture(file: Path, picture: np.ndarray = PICTURE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), picture)
    return file


def odd_folder(root: Path) -> Path:
    """images/val and labels/val below ``root``: every label of ``LABELS`` and odd pictures with a good label."""
    images, labels = root / "images" / "val", root / "labels" / "val"
    labels.mkdir(parents=True)
    for name, text in LABELS.items():
        write_picture(images / f"label-{name}.png")
        (labels / f"label-{name}.txt").write_bytes(text.encode())
    write_picture(images / "unlabelled.png")
    latin = write_picture(images / "latin.png")
    (labels / "latin.txt").write_bytes("0 0.5 0.5 0.2 0.2 # größer\n".encode("latin-1"))
    good = latin.read_bytes()
    write_picture(images / "good.jpg")
    jpeg = (images / "good.jpg").read_bytes()
    contents = {
        "cut.png": good[: len(good) // 2],
        "checksum.png": good[:60] + bytes([good[60] ^ 1]) + good[61:],
        "zero.png": b"",
        "text.jpg": b"no picture",
        "header.jpg": jpeg[:30],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "trailing.jpg": jpeg + b"more",
    }
    for name, content in contents.items():
        (images / name).write_bytes(content)
    write_picture(images / "small.png", PICTURE[:9])
    write_picture(images / "ten.png", PICTURE[:10])
    write_picture(images / "gray.bmp", PICTURE[:, :, 0])
    for suffix in ("webp", "TIF", "tiff", "JPEG"):
        write_picture(images / f"format.{suffix}")
    Image.fromarray(PICTURE).save(images / "gif.jpg", "GIF")
    Image.fromarray(PICTURE).save(images / "skipped.gif")
    Image.fromarray(PICTURE).save(images / "format.dng", "TIFF")
    cv2.imwrite(str(images / "float.pfm"), PICTURE.astype(np.float32))
    write_picture(images / "dots.in.name.png")
    for name in (
        "a.png",
        "a.bmp",
        "cam1/frame.png",
        "cam2/frame.png",
        "._003.png",
        ".hidden/x.png",
        "folder.png/x.png",
    ):
        write_picture(images / name)
    os.symlink(images / "nowhere.png", images / "dangling.png")
    os.symlink(images / "a.png", images / "link.png")
    write_picture(root / "elsewhere" / "y.png")
    os.symlink(root / "elsewhere", images / "linked")
    for file in images.glob("**/*"):
        label = Path(str(label_file(str(file))))
        if file.suffix and not label.exists() and file.stem not in ("unlabelled",):
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(BOX)
    (labels / "linked").mkdir(exist_ok=True)
    (labels / "linked" / "y.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    return root


def dataset_of(files: list[str], **more: Any) -> Dataset:
    return Dataset([], files, None, [], "--data x.yaml", **more)


def needs(upstream: str = "yolov5", classes: int = 3, **more: Any) -> Needs:
    return Needs(upstream, classes, **{"train": False, **more})


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_images_and_rows_equal_upstreams(checkouts: Callable[[str], Path], tmp_path: Path, upstream: str) -> None:
    folder = odd_folder(tmp_path) / "images" / "val"
    listing = tmp_path / "more.txt"
    listing.write_text("\n./images/val/a.png\r\n./elsewhere/y.png\n\n")
    sources = [folder, folder / "cam1", listing]
    checked = check_dataset(dataset_of(find_images(sources, "x")), needs(upstream))
    ours = {file: read_labels(label_file(file), 3).tolist() for file in checked.dataset.val}
    theirs = json.loads(
        run_python(checkouts(upstream), TASKS, "read_images", upstream, *sources).stdout.strip().splitlines()[-1]
    )
    assert ours == theirs
    assert "inf" not in str(ours) and len(ours) > 25 and checked.val is not None
    assert checked.val.corrupt > 20 and checked.val.duplicates == (upstream == "yolov5")


def test_summary_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, text in {"a": BOX, "b": BOX + BOX + "2 0.1 0.1 0.1 0.1\n", "c": "", "d": None, "e": "x"}.items():
        write_picture(tmp_path / "images" / f"{name}.png")
        if text is not None:
            (tmp_path / "labels").mkdir(exist_ok=True)
            (tmp_path / "labels" / f"{name}.txt").write_text(text)
    files = find_images([tmp_path / "images"], "x")
    with caplog.at_level(logging.INFO, "quantization"):
        checked = check_dataset(dataset_of(files).with_train(files), needs(train=True, train_labels=True))
    assert checked.train == checked.val and checked.dataset.val == checked.dataset.train == files[:4]
    summary = checked.val
    assert summary is not None and summary.boxes == (2, 0, 1)
    assert (summary.labelled, summary.missing, summary.empty, summary.corrupt, summary.duplicates) == (2, 1, 1, 1, 1)
    assert "val: 2 images with labels, 2 without (background), 1 corrupt, 1 duplicate rows removed" in caplog.text
    assert "1 of 5 images are left out (first: " in caplog.text and "e.txt, line 1: 'x'" in caplog.text
    single = check_dataset(dataset_of(files, class_count=3), needs(classes=1, single_cls=True))
    assert single.val is not None and single.val.boxes == (3,)
    without = check_dataset(dataset_of(files), needs(val=False))
    assert without.val is None and without.dataset.val == files


@pytest.mark.parametrize(
    "label, complaint",
    [
        ("0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.2 0.2", "a.txt, line 2: class 3 is out of range, the model has 3 classes"),
        ("0.5 0.5 0.5 0.2 0.2", "a.txt, line 1: class 0.5 is not a whole number"),
        ("inf 0.5 0.5 0.2 0.2", "a.txt, line 1: class inf is out of range"),
        ("1 0 0 1 0 1 1 0 1\n0 0.5 0.5 0.2 0.2", "a.txt, line 2: a box among polygons"),
        ("", r"no box at all \(1 label files are empty\)"),
        ("x", "none of 1 images can be used .*line 1: 'x' is not a row of numbers"),
    ],
)
def test_refused_labels(tmp_path: Path, label: str, complaint: str) -> None:
    file = str(write_picture(tmp_path / "images" / "a.png"))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(label)
    with pytest.raises(UserError, match=complaint):
        check_dataset(dataset_of([file]), needs())
    annotated = Dataset([], [file], tmp_path / "instances.json", [], "x")
    assert check_dataset(annotated, needs()).val is None  # with a JSON the labels are not read


def test_classes_must_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.yaml has 4 classes, the model has 3"):
        check_dataset(dataset_of([str(tmp_path)], class_count=4), needs())


@pytest.mark.parametrize(
    "image, label, hint",
    [
        ("images/a.png", "Labels/a.txt", r"labels/a.txt is the first that is missing; rename \S+/Labels to labels"),
        ("JPEGImages/a.png", "labels/a.txt", "JPEGImages/a.txt is .*rename JPEGImages to images and"),
        ("images/a.png", "x/a.txt", "put the labels below labels/"),
        ("images/b/a.png", "images/b/a.txt", "a label beside an image is not read"),
        ("pictures/a.png", "x/a.txt", "missing; put images below images/"),
    ],
)
def test_no_labels_at_all(tmp_path: Path, image: str, label: str, hint: str) -> None:
    write_picture(tmp_path / "deep" / image)
    (tmp_path / "deep" / label).parent.mkdir(exist_ok=True)
    (tmp_path / "deep" / label).write_text(BOX)
    with pytest.raises(UserError, match=hint):
        check_dataset(dataset_of([str(tmp_path / "deep" / image)]), needs())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side, kept", [(13700, True), (70000, False)])
def test_huge_pictures(tmp_path: Path, side: int, kept: bool, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow refuses 188 megapixels, OpenCV refuses 4,900."""
    limit = Image.MAX_IMAGE_PIXELS
    file = tmp_path / "images" / "a.png"
    file.parent.mkdir()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)  # one bit a pixel
    row = bytes(1 + (side + 7) // 8)
    pixels = chunk(b"IDAT", zlib.compress(row * side, 1)) if kept else chunk(b"IDAT", zlib.compress(row))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(BOX)
    if kept:
        assert check_dataset(dataset_of([str(file)]), needs()).dataset.val == [str(file)]
        assert cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape == (side, side)
    else:
        with pytest.raises(UserError, match="70000 x 70000 pixels, more than OpenCV reads"):
            check_dataset(dataset_of([str(file)]), needs())
        with pytest.raises(cv2.error):
            cv2.imread(str(file))
    assert limit == Image.MAX_IMAGE_PIXELS and not [warning for warning in recwarn if "Bomb" in str(warning.category)]


def test_channels() -> None:
    check_channels(3, "a.pt")
    for channels in (1, 4):
        with pytest.raises(UserError, match=f"a.pt: the first convolution takes {channels} channels"):
            check_channels(channels, "a.pt")


def test_data_set_is_checked_as_it_is_opened(tmp_path: Path) -> None:
    odd_folder(tmp_path)
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/val\nval: images/val\nnc: 3\n")
    dataset = open_dataset(data=str(tmp_path / "data.yaml"))
    assert dataset.class_count == 3 and dataset.class_names(3) == ["class0", "class1", "class2"]
    checked = check_dataset(dataset, needs(train=True))
    assert checked.dataset.train != dataset.train and checked.train is None
    # without labels a training image may have a bad label file
    assert set(checked.dataset.train) > set(checked.dataset.val)
