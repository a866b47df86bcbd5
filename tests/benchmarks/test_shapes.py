"""The drawn data set: deterministic, consistent in itself, and readable by pycocotools and OpenCV."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from shape_classes import MAX_CLASSES, class_names

from shapes import draw_dataset, main

SIZES = dict(train=5, val=12, size=128, classes=7, objects=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("shapes") / "set", **SIZES, seed=3, workers=2).parent


def digest(folder: Path) -> str:
    """Of every file but data.yaml, which holds the folder's own path."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "data.yaml":
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


def test_same_seed_same_bytes_whatever_the_workers(folder: Path, tmp_path: Path) -> None:
    one = draw_dataset(tmp_path / "one", **SIZES, seed=3, workers=1).parent
    other = draw_dataset(tmp_path / "other", **SIZES, seed=4, workers=2).parent
    assert digest(one) == digest(folder)
    assert digest(other) != digest(folder)


def test_labels_and_annotations_agree(folder: Path) -> None:
    coco = COCO(str(folder / "annotations" / "instances_val2017.json"))
    assert len(coco.getImgIds()) == SIZES["val"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == class_names(SIZES["classes"])
    shapes = set()
    for entry in coco.loadImgs(coco.getImgIds()):
        name = Path(entry["file_name"])
        assert int(name.stem) == entry["id"]
        height, width = cv2.imread(str(folder / "images" / "val2017" / name)).shape[:2]
        assert (entry["height"], entry["width"]) == (height, width)
        shapes.add((height, width))
        rows = np.loadtxt(folder / "labels" / "val2017" / f"{name.stem}.txt", ndmin=2)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=entry["id"]))
        assert len(rows) == len(annotations) > 0
        for (cls, x, y, w, h), annotation in zip(rows, annotations):
            assert int(cls) == annotation["category_id"]
            left, top, box_width, box_height = annotation["bbox"]
            assert left >= 0 and top >= 0 and left + box_width <= width and top + box_height <= height
            assert 0 < annotation["area"] <= box_width * box_height
            expected = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
            np.testing.assert_allclose(annotation["bbox"], expected, atol=1e-3)
    assert len(shapes) > 1  # letterboxing has something to do


def test_lists_and_yaml_lead_to_the_images(folder: Path) -> None:
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data["nc"] == len(data["names"]) == SIZES["classes"]
    for key, count in (("train", SIZES["train"]), ("val", SIZES["val"])):
        lines = Path(data[key]).read_text().splitlines()
        assert len(set(lines)) == count
        for line in lines:
            image = Path(data["path"]) / line
            assert image.is_file()
            assert Path(str(image).replace("images", "labels")).with_suffix(".txt").is_file()


def test_box_fits_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One grey object on black: the bright pixels' extent is the box, to a pixel of antialiasing."""
    import shape_images

    grey = np.full(3, 200, np.float32)
    monkeypatch.setattr(shape_images, "two_colours", lambda rng, behind, difficulty: (grey, grey))
    monkeypatch.setattr(
        shape_images, "background", lambda rng, height, width, difficulty: np.zeros((height, width, 3), np.float32)
    )
    for seed in range(12):
        canvas = shape_images.Canvas(np.random.default_rng(seed), shape_images.Settings(tmp_path, 128, 10, 1, 0, 0.0))
        canvas.add()
        ys, xs = np.nonzero(canvas.image[..., 0] > 100)
        _, ((_cls, (x, y, w, h), area),) = canvas.finish()
        np.testing.assert_allclose((x, y, x + w, y + h), (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), atol=1)
        assert abs(area - len(xs)) <= 0.1 * area


def test_largest_objects(tmp_path: Path) -> None:
    """Boxes as wide as asked for at most, rotated ones included, and many of them near that; by default wider ones."""
    sides = {}
    for largest in (0.2, 0.5):
        data = draw_dataset(tmp_path / str(largest), train=1, val=12, size=160, objects=6, workers=1, largest=largest)
        content = json.loads((data.parent / "annotations" / "instances_val2017.json").read_text())
        sides[largest] = max(max(annotation["bbox"][2:]) for annotation in content["annotations"])
    assert 0.75 * 32 < sides[0.2] <= 32 + 1 < 0.3 * 160 < sides[0.5] <= 80 + 1


def test_all_classes_differ() -> None:
    assert len(set(class_names(MAX_CLASSES))) == MAX_CLASSES == 80


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--classes", "81"], "--classes"),
        (["--size", "10"], "--size"),
        (["--difficulty", "2"], "--difficulty"),
        (["--largest", "0.1"], "--largest"),
        (["--train", "0"], "--train"),
    ],
)
def test_bad_arguments_are_refused(arguments: list, word: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "set"), *arguments]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
