"""Output files that are never half written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Iterator

from quantization.errors import UserError


def check_writable(path: str | os.PathLike[str], flag: str) -> Path:
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
def atomic_write(path: str | os.PathLike[str]) -> Iterator[str]:
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


def write_json(file: str, content: Any) -> None:
    """Write JSON; the file appears complete or not at all."""
    with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=2)


def refuse_overwriting(weight: str, *outputs: str | None) -> None:
    """Raises a UserError if an output is the input or another output."""
    seen = [Path(weight).resolve()]
    for output in outputs:
        if output is None:
            continue
        if Path(output).resolve() in seen:
            raise UserError(f"{output} would be overwritten: give every output a name of its own")
        seen.append(Path(output).resolve())
