"""Images of folders and lists; test_checks.py compares them with upstream's."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from quantization.data.listing import find_images
from quantization.errors import UserError
from support.log_records import package_records


def touch(*files: Path) -> list[str]:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return [str(file) for file in files]


def test_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "images"
    expected = touch(root / "b.PNG", root / "a" / "x.tiff", root / "v1.0" / "x.jpg", root / "[1]" / "z.webp")
    touch(root / "._b.png", root / ".git" / "x.png", root / "notes.txt", root / "png", root / "c.gif", root / "d.heic")
    touch(tmp_path / "outside" / "y.bmp")
    os.symlink(tmp_path / "outside", root / "link")
    os.symlink(root, root / "a" / "loop")
    assert find_images([root], "here") == sorted([*expected, str(root / "link" / "y.bmp")])
    assert "a/loop links to a folder above it and is not entered" in caplog.text
    assert "skips 1 .gif, 1 .heic" in caplog.text


def test_what_is_listed_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = touch(tmp_path / "a" / "x.png", tmp_path / "a" / "b" / "x.png", tmp_path / "a" / "x.bmp")
    os.symlink(tmp_path / "a" / "x.png", tmp_path / "a" / "y.png")
    listing = tmp_path / "list.txt"
    listing.write_text("./a/x.png\n./a//x.png\n./a/b/../x.png\n")
    found = find_images([tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / ".." / "a", listing], "here")
    assert found == sorted([*files, str(tmp_path / "a" / "y.png")])
    assert "8 repeated images count once" in caplog.text
    caplog.clear()
    find_images([tmp_path / "a"], "here")
    assert not package_records(caplog)


def test_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """./x is looked for beside the list, x in the current folder first: as upstream does."""
    touch(*(tmp_path / part / "x.png" for part in ("lists", "here")), tmp_path / "lists" / "#1.png")
    touch(tmp_path / "lists" / "only.png", tmp_path / "here" / "z.png")
    monkeypatch.chdir(tmp_path / "here")
    listing = tmp_path / "lists" / "val.txt"
    text = "\n# comment\r\n./x.png  \r\nx.png\nonly.png\n#1.png\n./z.png\nnotes.md\nREADME\n"
    listing.write_bytes(text.encode("utf-16"))
    expected = ["lists/x.png", "here/x.png", "lists/only.png", "lists/#1.png", "here/z.png"]
    with caplog.at_level(logging.WARNING, "quantization"):
        assert find_images([listing], "here") == [str(tmp_path / file) for file in expected]
    assert "2 lines that are not images are skipped (first: notes.md)" in caplog.text
    os.symlink(listing, tmp_path / "linked.txt")
    assert find_images([tmp_path / "linked.txt"], "here")[0] == str(tmp_path / "lists" / "x.png")


def test_a_linked_folder_keeps_the_spelling_that_has_labels(tmp_path: Path) -> None:
    """yolov5 resolves the entry of the yaml, yolov7 does not; the labels lie on one side."""
    touch(tmp_path / "store" / "images" / "val" / "x.png")
    (tmp_path / "set" / "images").mkdir(parents=True)
    os.symlink(tmp_path / "store" / "images" / "val", tmp_path / "set" / "images" / "val")
    entry = tmp_path / "set" / "images" / "val"
    assert find_images([entry], "x") == [str(entry / "x.png")]
    (tmp_path / "store" / "labels" / "val").mkdir(parents=True)
    assert find_images([entry], "x") == [str(tmp_path / "store" / "images" / "val" / "x.png")]
    (tmp_path / "set" / "labels" / "val").mkdir(parents=True)
    assert find_images([entry], "x") == [str(entry / "x.png")]


def test_refused(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    for text, complaint in (
        ("", "lists no images"),
        ("a.txt\n", "lists no images"),
        ("\ngone.jpg\n", "list.txt, line 2, lists gone.jpg, which does not exist"),
    ):
        listing.write_text(text)
        with pytest.raises(UserError, match=complaint):
            find_images([listing], "x")
    listing.write_bytes("größe.jpg".encode("latin-1"))
    with pytest.raises(UserError, match=r"list\.txt is not UTF-8"):
        find_images([listing], "x")
    with pytest.raises(UserError, match="does not exist"):
        find_images([tmp_path / "none"], "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="lists no images"):
        find_images([tmp_path / "empty"], "x")


def test_two_dots_step_up_from_where_a_link_leads(tmp_path: Path) -> None:
    (there,) = touch(tmp_path / "store" / "x.png")
    touch(tmp_path / "x.png")
    (tmp_path / "store" / "part").mkdir()
    os.symlink(tmp_path / "store" / "part", tmp_path / "link")
    (tmp_path / "list.txt").write_text("./link/../x.png\n")
    assert find_images([tmp_path / "list.txt"], "x") == [there]
