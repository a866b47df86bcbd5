"""Images that go during a training: which ones take their place, and when it is enough."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from quantization.data.images import Loader
from quantization.data.substitutes import FEWEST, Substitutes
from quantization.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Each image is of its own grey."""
    names = [str(tmp_path / f"{number:02}.png") for number in range(14)]
    for number, name in enumerate(names):
        cv2.imwrite(name, np.full((16, 16, 3), 10 * number, np.uint8))
    return names


def seen(files: list[str], substitutes: Substitutes) -> list[tuple[str, int]]:
    """File and grey of every image of a pass."""
    loader = Loader(files, (16, 16), 4, 2, shuffle_seed=3, read_image=substitutes.read)
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [4, 4, 4, 2]
    return [(file, int(image[0, 8, 8])) for batch in batches for file, image in zip(batch.files, batch.images)]


def test_the_next_image_of_the_list_takes_the_place(files: list[str]) -> None:
    before = seen(files, Substitutes(files))
    for place in (5, 6, 13):
        Path(files[place]).unlink()
    Path(files[2]).write_bytes(b"")
    substitutes = Substitutes(files)
    replaced = {files[5]: files[7], files[6]: files[7], files[13]: files[0], files[2]: files[3]}
    expected = [replaced.get(file, file) for file, _ in before]
    assert seen(files, substitutes) == [(file, 10 * files.index(file)) for file in expected]
    assert set(substitutes.failed) == set(replaced)
    assert "does not exist any more" in substitutes.failed[files[5]]
    assert "is not a readable image" in substitutes.failed[files[2]]


def test_too_many_are_an_error_that_names_the_first(files: list[str]) -> None:
    for file in files[: FEWEST + 1]:
        Path(file).unlink()
    substitutes = Substitutes(files)
    with pytest.raises(UserError, match=rf"{FEWEST + 1} training images cannot be read any more, the first: .*00\.png"):
        substitutes.read(files[0], (16, 16))


def test_without_any_image(files: list[str]) -> None:
    Path(files[0]).unlink()
    with pytest.raises(UserError, match="no training image can be read"):
        Substitutes(files[:1]).read(files[0], (16, 16))


def test_an_imread_that_raises_is_a_user_error(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's own raises what numpy does of a file that has gone, and cv2.error of one without bytes."""

    def imread(file: str, *flags: int) -> np.ndarray:
        return cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)

    monkeypatch.setattr(cv2, "imread", imread)
    Path(files[0]).unlink()
    Path(files[1]).write_bytes(b"")
    for file in files[:2]:
        with pytest.raises(UserError, match=file):
            list(Loader(files[:2] if file == files[0] else files[1:2], (16, 16)))
