"""Labels as upstream's loss reads them, against upstream's own data set, and the loss against upstream's ComputeLoss."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantization.data.images import Loader
from quantization.data.labels import any_labels, batch_targets, label_file, parse_labels, read_labels
from quantization.errors import UserError
from support.workflow import run_task


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A list of two images of different shapes, and one without objects."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    files = []
    for number, (height, width) in enumerate(((60, 100), (90, 50), (64, 64))):
        files.append(tmp_path / "images" / f"{number}.png")
        cv2.imwrite(str(files[-1]), generator.integers(0, 255, (height, width, 3), np.uint8))
    (tmp_path / "labels" / "0.txt").write_text("1 0.25 0.5 0.2 0.4\n0 0.9 0.1 0.1 0.2\n")
    (tmp_path / "labels" / "1.txt").write_text("2 0.5 0.75 0.6 0.1\n")
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{file}\n" for file in files))
    return listing


def test_targets_by_hand(images: Path) -> None:
    """100 x 60 becomes 64 x 38 with 13 rows of border; 50 x 90 becomes 35 x 64 with 14.5 columns."""
    (batch,) = Loader(images.read_text().split(), (64, 64), 3)
    np.testing.assert_allclose(
        batch_targets(batch, (64, 64), 3),
        [
            [0, 1, 0.25, (0.5 * 38 + 13) / 64, 0.2, 0.4 * 38 / 64],
            [0, 0, 0.9, (0.1 * 38 + 13) / 64, 0.1, 0.2 * 38 / 64],
            [1, 2, (0.5 * 35 + 14.5) / 64, 0.75, 0.6 * 35 / 64, 0.1],
        ],
        atol=1e-6,
    )
    assert any_labels(batch.files) and not any_labels(batch.files[2:])
    assert batch_targets(type(batch)(batch.images, []), (64, 64), 3).shape == (0, 6)


def test_a_flip_mirrors_the_boxes(images: Path) -> None:
    files = images.read_text().split()[:1]
    plain = batch_targets(next(iter(Loader(files, (64, 64), 1))), (64, 64), 3)
    seen = set()
    for seed in range(8):
        (batch,) = Loader(files, (64, 64), 1, shuffle_seed=seed)
        expected = plain.copy()
        if batch.flips[0]:
            expected[:, 2] = 1 - expected[:, 2]
        np.testing.assert_allclose(batch_targets(batch, (64, 64), 3), expected, atol=1e-6)
        seen.add(batch.flips[0])
    assert seen == {False, True}


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_targets_and_loss_equal_upstreams(checkouts: Callable[[str], Path], images: Path, upstream: str) -> None:
    result = run_task(checkouts(upstream), "labels_and_loss", upstream, images)
    np.testing.assert_allclose(sorted(result["ours"]), sorted(result["theirs"]), atol=0.01)
    assert result["loss"] == pytest.approx(result["expected"], rel=1e-5)
    # hyp.scratch-low.yaml and hyp.scratch.p5.yaml, scaled by train.py for 3 classes and 320 pixels
    cls, obj = (0.5, 1.0) if upstream == "yolov5" else (0.3, 0.7)
    assert result["default"] == pytest.approx(
        {
            "box": 0.05,
            "cls": cls * 3 / 80,
            "obj": obj / 4,
            "cls_pw": 1.0,
            "obj_pw": 1.0,
            "anchor_t": 4.0,
            "fl_gamma": 0.0,
        }
    )
    assert result["gradient"] > 0


def test_label_files(tmp_path: Path) -> None:
    assert label_file("/a/images/b/images/c.d.jpg") == Path("/a/images/b/labels/c.d.txt")
    assert label_file("images/c.jpg") == Path("labels/c.txt") and label_file("/a/b.jpg") == Path("/a/b.txt")
    image = tmp_path / "images" / "b" / "images" / "c.jpg"
    first = tmp_path / "labels" / "b" / "images" / "c.txt"  # where yolov7 looks
    first.parent.mkdir(parents=True)
    first.write_text("")
    assert label_file(str(image)) == first
    last = tmp_path / "images" / "b" / "labels" / "c.txt"
    last.parent.mkdir(parents=True)
    last.write_text("")
    assert label_file(str(image)) == last


def test_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("1 0.1 0.2 0.5 0.2 0.5 0.6\n\n0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6\n")
    np.testing.assert_allclose(read_labels(file, 2), [[1, 0.3, 0.4, 0.4, 0.4], [0, 0.5, 0.5, 0.2, 0.2]], rtol=1e-6)
    assert read_labels(file, 1, single_cls=True)[:, 0].tolist() == [0, 0]
    assert read_labels(tmp_path / "none.txt", 2).shape == (0, 5)
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text("1 0.5 0.5 0.25 0.5\n", encoding=encoding)
        assert read_labels(file, 2).tolist() == [[1, 0.5, 0.5, 0.25, 0.5]]


def test_lines_are_those_of_the_file_where_rows_repeat(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n\n5 0.5 0.5 0.1 0.1\n")
    label = parse_labels(file)
    assert (label.duplicates, list(label.lines), label.rows[:, 0].tolist()) == (1, [2, 1, 5], [0, 1, 5])
    with pytest.raises(UserError, match="line 5: class 5"):
        read_labels(file, 2)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is out of range, the model has 2 classes"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is not a whole number"),
        ("-1 0.5 0.5 0.1 0.1", "a value is negative"),
        ("0 0.5 1.5 0.1 0.1", "the box is out of range"),
        ("0 0.5 0.5 0.1", "4 numbers"),
        ("a b c d e", "'a b c d e' is not a row of numbers"),
        ("1 0.1 0.1 0.2 0.2 0.3 0.3", "a box among polygons"),
    ],
)
def test_bad_labels_name_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text("\n0 0.5 0.5 0.1 0.1\n" + line)
    number = 2 if "polygons" in complaint else 3
    with pytest.raises(UserError, match=f"^{file}, line {number}: {complaint}"):
        read_labels(file, 2)


WORDS = st.sampled_from(["0", "1", "2", "0.5", "0.25", "1.0", "-1", "1.5", "nan", "inf", "x", "", "1e-9", "0.1", "0.2"])
ROWS = st.lists(st.lists(WORDS, max_size=10).map(" ".join), max_size=5)


def rows_of_yolov5(text: str) -> np.ndarray | None:
    """The part of yolov5's verify_image_label that reads the rows, in float64; None: the image is left out."""
    lines = [line.split() for line in text.strip().splitlines() if len(line)]
    try:
        rows = [[float(word) for word in line] for line in lines]
    except ValueError:
        return None
    if any(len(row) > 6 for row in rows):
        if not all(len(row) >= 3 and len(row) % 2 for row in rows):
            return None
        boxes = []
        for row in rows:
            x, y = np.array(row[1::2]), np.array(row[2::2])
            boxes.append([row[0], (x.min() + x.max()) / 2, (y.min() + y.max()) / 2, np.ptp(x), np.ptp(y)])
        rows = boxes
    if not all(len(row) == 5 for row in rows):
        return None
    if not all(value >= 0 for row in rows for value in row) or not all(value <= 1 for row in rows for value in row[1:]):
        return None
    return np.array(sorted({tuple(row) for row in rows})).reshape(-1, 5)


@pytest.mark.parametrize("lead", [" ", "\t", "\n \n  "])
def test_a_first_row_that_is_indented_is_read(tmp_path: Path, lead: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text(f"{lead}0 0.5 0.5 0.1 0.1\n 1 0.5 0.5 0.2 0.2\n")
    for upstream in ("yolov5", "yolov7"):
        assert parse_labels(file, upstream).rows[:, 0].tolist() == [0, 1]


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_any_rows_are_read_as_yolov5_reads_them(tmp_path: Path, rows: list[str], end: str) -> None:
    text = end.join(rows)
    file = tmp_path / "x.txt"
    file.write_bytes(text.encode())
    label, expected = parse_labels(file), rows_of_yolov5(text)
    assert bool(label.corrupt) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(label.rows[np.lexsort(label.rows.T[::-1])], expected, atol=1e-6)
        places = text.splitlines()
        for number, row in zip(label.lines, label.rows):
            assert np.float32(float(places[number - 1].split()[0])) == row[0]
    strict = parse_labels(file, "yolov7")  # which leaves out more, and changes nothing else
    assert strict.corrupt or np.array_equal(strict.rows, label.rows)
