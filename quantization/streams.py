"""Standard output and error that go on when their reader (``| head``) has gone. stdlib only."""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any, TextIO


class _Pipe(io.FileIO):
    """A pipe whose reader may go: what is written from then on is dropped, also by libraries and child processes."""

    def write(self, data: Any) -> int:
        """As ``io.FileIO.write``."""
        try:
            return super().write(data)
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def outlive_readers() -> None:
    """Let the process end its work, and with its own exit code, whoever has stopped reading what it prints."""
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)


def _outliving(stream: TextIO) -> TextIO:
    """The same stream over a pipe that may break; a stream that is no pipe, or not the process's own, as it is."""
    if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
        return stream  # a test's, or there is none
    mode = os.fstat(stream.fileno()).st_mode
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
