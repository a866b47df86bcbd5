"""Command lines for the scripts that a benchmark runs in processes of their own."""

from __future__ import annotations

from typing import Mapping


def flagged(options: Mapping[str, object]) -> list[str]:
    """Words of a command line: each flag and its value; None for a flag without one."""
    return [str(word) for flag, value in options.items() for word in ((flag,) if value is None else (flag, value))]
