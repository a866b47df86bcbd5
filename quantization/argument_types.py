"""Types of command-line numbers for argparse; each says in its message what it takes."""

from __future__ import annotations

import argparse

_INFINITY = float("inf")


def positive(text: str) -> int:
    """A whole number above zero.

    Raises:
        argparse.ArgumentTypeError: it is below 1.
        ValueError: it is no whole number.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def positive_number(text: str) -> float:
    """A finite number above zero.

    Raises:
        argparse.ArgumentTypeError: it is zero, negative, infinite or NaN.
        ValueError: it is no number.
    """
    value = float(text)
    if not 0 < value < _INFINITY:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def not_negative(text: str) -> float:
    """A finite number from zero.

    Raises:
        argparse.ArgumentTypeError: it is negative, infinite or NaN.
        ValueError: it is no number.
    """
    value = float(text)
    if not 0 <= value < _INFINITY:
        raise argparse.ArgumentTypeError(f"{text} is not zero or above")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1.

    Raises:
        argparse.ArgumentTypeError: it is outside.
        ValueError: it is no number.
    """
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value
