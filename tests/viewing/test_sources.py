"""Images and videos that can be used, and one line for what cannot."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from quantization.errors import UserError
from quantization.viewing.sources import open_source


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((20, 30, 3), 40 * number, np.uint8))
    return tmp_path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 24))
    for number in range(7):
        writer.write(np.full((24, 32, 3), 30 * number, np.uint8))
    writer.release()
    return file


def test_files_folders_and_lists_count_once(pictures: Path) -> None:
    (pictures / "list.txt").write_text("./2.png\n")
    source = open_source([str(pictures / "1.png"), str(pictures), str(pictures / "list.txt")], 1)
    found = [(Path(name).name, int(image[0, 0, 0])) for name, image in source]
    assert found == [("1.png", 40), ("0.png", 0), ("2.png", 80)]
    assert [name for name, _ in source] == [name for name, _ in source]  # twice the same


def test_every_nth_frame(video: Path) -> None:
    source = open_source([str(video)], 3)
    frames = list(source)
    assert len(source) == 3
    assert [name for name, _ in frames] == ["film.avi frame 0", "film.avi frame 3", "film.avi frame 6"]
    assert [round(float(image.mean()) / 30) for _, image in frames] == [0, 3, 6]


def test_a_damaged_image_of_a_folder_is_left_out_aloud(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pictures / "bad.jpg").write_bytes(b"no image")
    with caplog.at_level("WARNING", "quantization"):
        assert len(list(open_source([str(pictures)], 1))) == 3
    assert "1 of 4 images are left out" in caplog.text and "bad.jpg" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jpg", b"no image", "bad.jpg is not a readable image"),
        ("bad.mp4", b"no video", "bad.mp4 is not a video that OpenCV can read"),
        ("gone.mp4", None, "gone.mp4 does not exist"),
        ("gone", None, "gone does not exist"),
        ("notes.pdf", b"%PDF", "notes.pdf is no image"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        open_source([str(tmp_path / name)], 1)
    assert "\n" not in str(raised.value)


def test_a_folder_without_images_and_a_video_among_others(tmp_path: Path, video: Path, pictures: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="lists no images"):
        open_source([str(tmp_path / "empty")], 1)
    with pytest.raises(UserError, match="give a video alone"):
        open_source([str(pictures / "0.png"), str(video)], 1)
