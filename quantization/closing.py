"""How every command ends: what it found, what it wrote, and what to run next."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, field
from typing import Mapping, Sequence

from quantization.tables import Table, shown_width, table_text

# --quiet silences "quantization" but not this one
LOG = logging.getLogger("quantization.closing")


@dataclass(frozen=True)
class Closing:
    """The end of a command.

    Attributes:
        found: figures; None: there are none.
        verdict: what they mean, in one line.
        written: file to what it is.
        following: command lines that come next, in their order; what is no command ends with a colon.
    """

    found: Table | None = None
    verdict: str = ""
    written: Mapping[str, str] = field(default_factory=dict)
    following: Sequence[str] = ()


def closing_text(closing: Closing) -> str:
    """The end of a command for a terminal; starts with an empty line."""
    parts: list[str] = []
    head = [] if closing.found is None else [table_text(closing.found)]
    head += [closing.verdict] if closing.verdict else []
    if head:
        parts.append("\n".join(head))
    if closing.written:
        parts.append(f"Wrote\n{_written_text(closing.written)}")
    if closing.following:
        parts.append("\n".join(["Next", *(f"  {line}" for line in closing.following)]))
    return "".join(f"\n{part}\n" for part in parts).rstrip("\n")


def _written_text(written: Mapping[str, str]) -> str:
    width = max(map(shown_width, written))
    return "\n".join(f"  {file}{' ' * (width - shown_width(file))}  {what}" for file, what in written.items())


def tell(closing: Closing) -> None:
    """Log the end of a command, also with ``--quiet``."""
    LOG.info("%s", closing_text(closing))


def command_line(script: str, *words: object) -> str:
    """A line to type: ``python scripts/SCRIPT ...``, quoted for a shell."""
    return shlex.join(["python", f"scripts/{script}", *map(str, words)])
