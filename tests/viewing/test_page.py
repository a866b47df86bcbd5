"""The page of the pictures."""

from __future__ import annotations

import pytest

from quantization.viewing.page import picture_page
from quantization.viewing.results import Overview


@pytest.mark.parametrize(
    "models, told", [(("a.pt",), ""), (("a.pt", "x/b.pt"), ""), (("a.pt", "x/\u86fe.pt"), "model 2 is \u86fe.pt, ")]
)
def test_names_that_the_pictures_cannot_show_are_on_the_page(models: tuple[str, ...], told: str) -> None:
    summary = Overview(models, ["moth", "\u86fe", "<\u866b>"], 0.25, 0.45, [(64, 64)] * len(models))
    assert [summary.drawn_name(number) for number in range(3)] == ["moth", "class 1", "class 2"]
    assert f"In the pictures, {told}class 1 is \u86fe, class 2 is &lt;\u866b&gt;." in picture_page(summary, [], [])


def test_names_that_the_pictures_show_are_not_repeated() -> None:
    assert "In the pictures" not in picture_page(Overview(["a.pt"], ["moth"], 0.25, 0.45, [(64, 64)]), [], [])
