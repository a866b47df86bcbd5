"""Letterboxing, batches and shapes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from quantization.data.dataset import open_dataset
from quantization.data.headers import image_fault
from quantization.data.images import Loader, image_shape, letterbox, load_batches, rect_shapes
from quantization.errors import UserError
from quantization.evaluation.detections import to_image
from shapes import draw_dataset
from support.workflow import SUPPORT, run_task

DATA_TASKS = SUPPORT / "data_tasks.py"
PIXELS = np.random.default_rng(1).integers(0, 255, (20, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train=6, val=12, size=160, classes=4, objects=4, seed=3)
    return folder


def test_letterbox_and_back() -> None:
    image = np.zeros((90, 200, 3), np.uint8)
    image[20:60, 40:120] = 255
    boxed, gain, pad = letterbox(image, (160, 160))
    assert boxed.shape == (160, 160, 3) and (boxed[:40] == 114).all() and gain == 0.8 and pad == (0.0, 44.0)
    rows, columns = np.nonzero(boxed[:, :, 0] > 180)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)
    np.testing.assert_allclose(to_image(box, gain, pad, (90, 200)), [[40, 20, 120, 60]], atol=1.5)
    assert letterbox(image, (160, 160))[0].dtype == np.uint8
    assert letterbox(image, (96, 160))[0].shape == (96, 160, 3)


def test_rect_shapes_hold_every_image() -> None:
    generator = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in generator.integers(50, 400, (23, 2))]
    order, sizes = rect_shapes(shapes, 4, 320, 32)
    assert sorted(order) == list(range(23)) and len(sizes) == 6
    for number, index in enumerate(order):
        height, width = sizes[number // 4]
        ratio = 320 / max(shapes[index])
        assert int(shapes[index][0] * ratio) <= height and int(shapes[index][1] * ratio) <= width
        assert height % 32 == 0 and width % 32 == 0


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_rectangles_are_upstreams(name: str, checkouts: Callable[[str], Path], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    files = [str(tmp_path / "images" / f"{number:02d}.png") for number in range(40)]
    for file, width in zip(files, generator.choice([40, 60, 60, 60, 80], 40)):  # many of one shape
        cv2.imwrite(file, np.zeros((60, int(width), 3), np.uint8))
    mixed = [files[number] for number in generator.permutation(40)]
    (tmp_path / "list.txt").write_text("\n".join(mixed))
    order, shapes = run_task(checkouts(name), "rectangles", name, tmp_path / "list.txt", program=DATA_TASKS)
    batches = list(Loader(mixed, (128, 128), 4, rect_stride=32))
    assert [file for batch in batches for file in batch.files] == order
    assert [list(batch.images.shape[2:]) for batch in batches] == shapes


def test_loader_is_reproducible_and_complete(shapes: Path) -> None:
    files = open_dataset(str(shapes)).val
    loader = Loader(files, (64, 64), batch_size=5, workers=3)
    assert [file for batch in loader for file in batch.files] == files and len(loader) == 3
    first = [batch.files for batch in Loader(files, (64, 64), 5, shuffle_seed=1)]
    again = Loader(files, (64, 64), 5, shuffle_seed=1)
    assert [batch.files for batch in again] == first
    second = [batch.files for batch in again]
    assert second != first and sorted(file for part in second for file in part) == sorted(files)
    floats = np.concatenate(list(load_batches(files, (64, 64), 5)))
    assert floats.dtype == np.float32 and floats.shape == (12, 3, 64, 64) and 0.9 < floats.max() <= 1


def test_loader_names_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"bad\.jpg is not a readable image"):
        list(Loader([str(tmp_path / "bad.jpg")], (64, 64)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_shape_is_what_opencv_reads(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = str(tmp_path / f"turned.{suffix}")
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PIXELS).save(file, exif=exif)
    decoded = cv2.imread(file)
    if decoded is None:  # OpenCV 5 fails on a TIFF that is turned
        assert suffix == "tif" and "damaged" in image_fault(file)
    else:
        assert image_shape(file) == decoded.shape[:2] and image_fault(file) == ""


@pytest.mark.parametrize(
    "block",
    [b"Exif\0\0damaged", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'],
)
def test_shape_with_odd_metadata(tmp_path: Path, block: bytes) -> None:
    """A damaged EXIF block, one that is cut off, and an orientation in XMP, which OpenCV ignores."""
    file = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(file)
    plain = file.read_bytes()
    file.write_bytes(plain[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + plain[2:])
    assert image_shape(str(file)) == cv2.imread(str(file)).shape[:2] == (20, 50)
    assert image_fault(str(file)) == ""


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_files_cut_off_anywhere(tmp_path: Path, suffix: str) -> None:
    """What passes the check can be read; what is cut is named."""
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(file)
    whole = file.read_bytes()
    assert image_fault(str(file)) == ""
    for length in np.random.default_rng(0).integers(0, len(whole), 25):
        file.write_bytes(whole[:length])
        assert str(file) in image_fault(str(file)) or cv2.imread(str(file)) is not None


def test_a_jpeg_that_is_cut_off(tmp_path: Path) -> None:
    """Yolov5 finds out and leaves it out, yolov7 reads what is there; so does OpenCV."""
    file = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(file)
    file.write_bytes(file.read_bytes()[:-200])
    assert cv2.imread(str(file)) is not None
    assert image_fault(str(file), "yolov7") == "" and "cut off" in image_fault(str(file), "yolov5")


def test_damaged_bytes_are_never_a_crash(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    for suffix in ("jpg", "png", "bmp", "tif", "webp"):
        file = tmp_path / f"a.{suffix}"
        Image.fromarray(PIXELS).save(file)
        whole = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[generator.integers(0, min(len(whole), 80), 3)] = generator.integers(0, 256, 3)
            file.write_bytes(damaged.tobytes())
            assert image_fault(str(file)) == "" or str(file) in image_fault(str(file))
