"""Which entry of a JSON is an image's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from quantization.errors import UserError
from quantization.evaluation.path_match import match_files


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.png"], 0),
        (["b.png", "a.png"], 1),
        (["cam1/a.png", "cam2/a.png"], 1),
        (["a.png", "cam2/a.png"], 1),
        (["cam1/a.png", "a.png"], 1),  # the shorter name is right as a whole, the longer one contradicts
        (["val/cam1/a.png", "/x/val/cam2/a.png"], 1),
        (["D:\\x\\cam2\\a.png", "D:\\x\\cam1\\a.png"], 0),
        (["https://host/cam1/a.png?w=1", "https://host/cam2/a.png?w=1"], 1),
        (["cam1/a.png", "CAM2/A.PNG"], 1),
        (["a.PNG", "a.png"], 1),
        (["cam1/a.jpg", "cam2/a.jpg"], 1),
        (["cam2/a", "cam2/b"], 0),
        (["a.bmp", "a.png"], 1),
    ],
)
def test_the_longest_suffix_wins(names: list[str], expected: int) -> None:
    assert match_files(["/data/val/cam2/a.png"], names, "x.json") == [expected]


@pytest.mark.parametrize(
    "names, complaint",
    [
        (["b.png"], "x.json does not list /data/val/cam2/a.png"),
        (["aa.png", "cam2"], "does not list"),
        (["cam1/a.png", "cam3/a.png"], r"cam1/a.png \(entry 1\) and cam3/a.png \(entry 2\)"),
        (["a.jpg", "a.bmp"], r"a.jpg \(entry 1\) and a.bmp \(entry 2\)"),
        (["a.png", "a.png"], r"a.png \(entry 1\) and a.png \(entry 2\)"),
        (["a.png", "./"], "image number 2 has the file name './'"),
    ],
)
def test_doubt_is_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        match_files(["/data/val/cam2/a.png"], names, "x.json")


def test_one_entry_serves_one_file(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_text(folder)
    files = [str(tmp_path / folder / "a.png") for folder in ("one", "two")]
    with pytest.raises(UserError, match=f"lists a.png once, but {files[0]} and {files[1]}"):
        match_files(files, ["a.png"], "x.json")
    os.remove(files[1])
    os.symlink(files[0], files[1])
    assert match_files(files, ["a.png"], "x.json") == [0, 0]


def test_agrees_with_a_comparison_of_all_pairs() -> None:
    generator = np.random.default_rng(0)

    def name() -> str:
        return "/".join(generator.choice(list("abc"), int(generator.integers(1, 4)))) + ".png"

    def shared(file: str, entry: str) -> int:
        pairs = zip(file.split("/")[::-1], entry.split("/")[::-1])
        equal = [left == right for left, right in pairs]
        return [*equal, False].index(False)

    outcomes = set()
    for _ in range(300):
        names, file = [name() for _ in range(5)], "/data/" + name()
        lengths = [shared(file, entry) for entry in names]
        best = [number for number in range(5) if lengths[number] == max(lengths)]
        whole = [number for number in best if len(names[number].split("/")) == max(lengths)]
        best = whole or best
        outcomes.add(min(len(best), 2) if max(lengths) else 0)
        if max(lengths) and len(best) == 1:
            assert match_files([file], names, "x") == best
        else:
            with pytest.raises(UserError):
                match_files([file], names, "x")
    assert outcomes == {0, 1, 2}
