"""What every script shares: errors that a user can mend, messages, and output files that are never half written."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence


class UserError(Exception):
    """Bad input. The message is one line that names the file, layer or flag and the remedy."""


def run_main(main: Callable[[Optional[Sequence[str]]], int]) -> None:
    """Run a script's ``main`` and exit: 2 with one line on stderr for a ``UserError``, 130 for Ctrl-C.

    Args:
        main: takes an argument list (None: ``sys.argv[1:]``) and returns the exit code.
    """
    try:
        code = main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # the reader (`| head`) has gone; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def log_to_stdout() -> None:
    """Print the bundle's messages, as they are, to stdout."""
    logger = logging.getLogger("quantization")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))


def check_writable(path: "str | os.PathLike[str]", flag: str) -> Path:
    """Check, before any work is done, that ``path`` can be written.

    Args:
        path: the output file.
        flag: the option that named it, for the message.

    Returns:
        The path; its folder exists from then on.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder: name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=str(path.parent)):
            pass
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written ({error.strerror}): choose another place") from error
    return path


@contextlib.contextmanager
def atomic_write(path: "str | os.PathLike[str]") -> Iterator[str]:
    """Give a temporary path beside ``path`` that is renamed to it when the block ends without an error.

    Yields:
        A path in the same folder with the same suffix, so that writers that look at the suffix work.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=str(path.parent))
        os.close(handle)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from error
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes 0600 files; give what open() would have given
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
