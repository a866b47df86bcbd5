"""Numbers of command lines: what each type takes, and that its message says what it wants."""

from __future__ import annotations

import argparse
from typing import Callable

import pytest

from quantization.argument_types import positive, positive_number


@pytest.mark.parametrize(
    "kind, good, bad, words",
    [
        (positive, ["1", "512"], ["0", "-3"], "above zero"),
        (positive_number, ["0.5", "1e-9", "3"], ["0", "-0.1", "nan", "inf", "-inf"], "above zero"),
    ],
)
def test_numbers(kind: Callable[[str], float], good: list[str], bad: list[str], words: str) -> None:
    assert [kind(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not {words}"):
            kind(text)
    with pytest.raises(argparse.ArgumentTypeError, match="three is no"):
        kind("three")
