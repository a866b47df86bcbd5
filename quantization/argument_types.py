"""Types of command-line numbers for argparse; each says in its message what it takes."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """A whole number above zero.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no whole number") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def positive_number(text: str) -> float:
    """A finite number above zero.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value
