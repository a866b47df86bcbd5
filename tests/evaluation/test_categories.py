"""Which class a category is."""

from __future__ import annotations

import pytest

from quantization.errors import UserError
from quantization.evaluation.categories import Category, class_map, is_single_class

NAMES = ["ant", "bee", "cat"]


def classes_of(text: str, used: str = "", names: tuple[list[str], ...] = (NAMES,), classes: int = 3) -> list[int]:
    """Class numbers of categories named by words, in order; -1: of none. ``used``: their names; default: all."""
    categories = [Category(str(number), *word.split("<")) for number, word in enumerate(text.split())]
    wanted = set(used.split()) or {category.name for category in categories}
    keys = {category.key for category in categories if category.name in wanted}
    found = class_map(categories, keys, classes, names, "x.json")
    return [found.get(category.key, -1) for category in categories]


@pytest.mark.parametrize(
    "text, used, names, expected",
    [
        ("ant bee cat", "", (NAMES,), [0, 1, 2]),
        ("cat ant bee", "", (NAMES,), [2, 0, 1]),
        ("Cat ANT bee", "", (NAMES,), [2, 0, 1]),
        ("cat ant bee", "", ((), NAMES), [2, 0, 1]),  # data.yaml alone knows
        ("cat ant bee", "", (["0", "1", "2"], NAMES), [2, 0, 1]),
        ("cat ant bee", "", (), [0, 1, 2]),
        ("x y z", "", (NAMES,), [0, 1, 2]),  # no name in common: by order
        ("ant y z", "", (NAMES,), [0, 1, 2]),
        ("cat ant", "", (NAMES,), [2, 0]),
        ("cat dog ant bee", "cat ant", (NAMES,), [2, -1, 0, 1]),
        ("insects<none x<insects y<insects z<insects", "x y z", (), [-1, 0, 1, 2]),
        ("x<insects y<insects z<insects insects<none", "x y z", (), [0, 1, 2, -1]),
        ("1 2 3", "1 2", (["0", "1", "2"],), [0, 1, 2]),  # numbers are no names
    ],
)
def test_classes(text: str, used: str, names: tuple[list[str], ...], expected: list[int]) -> None:
    assert classes_of(text, used, names) == expected


@pytest.mark.parametrize(
    "text, used, names, complaint",
    [
        ("bee ant dog", "", (NAMES,), "has bee as category number 1, .* as class 1"),
        ("ant bee", "", (), "has 2 classes, the model has 3"),
        ("a b c d e", "a", (), "has 5 classes"),
        ("a b c d", "a b c", (), "has 4 classes"),  # the last one has no children
        ("insects<none x<insects y<insects z<insects", "", (), "has 4 classes"),  # the parent has boxes
        ("ant ant cat dog", "", (NAMES,), "has 4 classes"),
    ],
)
def test_refusals(text: str, used: str, names: tuple[list[str], ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        classes_of(text, used, names)


def test_single_class() -> None:
    assert classes_of("ant bee cat", names=(["item"],), classes=1) == [0, 0, 0]
    assert classes_of("ant", names=(["bug"],), classes=1) == [0]
    with pytest.raises(UserError, match="has 3 classes, the model has 1"):
        classes_of("ant bee cat", names=(["person"],), classes=1)
    assert is_single_class(1, []) and is_single_class(1, ["item"]) and not is_single_class(1, ["person"])
    assert not is_single_class(2, [])
