"""Types of command-line numbers for argparse; each says in its message what it takes."""

from __future__ import annotations

import argparse

_INFINITY = float("inf")


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
    value = _number(text)
    if not 0 < value < _INFINITY:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def not_negative(text: str) -> float:
    """A finite number from zero.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = _number(text)
    if not 0 <= value < _INFINITY:
        raise argparse.ArgumentTypeError(f"{text} is not zero or above")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
