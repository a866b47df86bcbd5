"""Output files that are never half written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Iterable, Iterator

from quantization.errors import UserError
from quantization.processes import host_name, is_running

MARK = "quant-tools"  # in the names of temporary files
STALE = 24 * 3600  # seconds after which a temporary file counts as left behind, whoever made it


def check_writable(path: str | os.PathLike[str], flag: str, make_folder: bool = True) -> Path:
    """Check, before any work is done, that ``path`` can be written.

    Args:
        path: the output file.
        flag: the option that named it, for the message.
        make_folder: leave a missing folder made; else it is taken away again (``atomic_write`` makes it later).

    Returns:
        The path.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder: name a file")
    made = missing_folders(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=str(path.parent)):
            pass
    except OSError as error:
        remove_empty(made)
        raise UserError(f"{flag} {path} cannot be written ({error.strerror}): choose another place") from error
    if not make_folder:
        remove_empty(made)
    return path


def missing_folders(folder: Path) -> list[Path]:
    """``folder`` and those above it that do not exist, the innermost first."""
    return [part for part in (folder, *folder.parents) if not part.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as long as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a temporary path beside ``path`` that is renamed to it when the block ends without an error.

    Yields:
        A path in the same folder with the same suffix, so that writers that look at the suffix work.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.stem}-{MARK}-{host_name()}-{os.getpid()}-"
        handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=str(path.parent))
        os.close(handle)
        yield temporary
        _settle(temporary)
        os.replace(temporary, path)
    except OSError as error:
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
        raise UserError(f"{path} cannot be written ({error.strerror or error}): {remedy}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):  # renamed, or gone with its folder
                os.unlink(temporary)


def _settle(file: str) -> None:
    """On the disk before it gets its name, with the mode that ``open`` would have given it (mkstemp's is 0600)."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(file, 0o666 & ~umask)
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(path: str | os.PathLike[str]) -> list[str]:
    """Remove the temporary files of ``path`` that ended processes of this machine left, and those older than a day.

    Call it before this process writes ``path``: a file that carries its own number is left from an earlier process.

    Returns:
        What was removed.
    """
    path = Path(path)
    pattern = re.compile(re.escape(f".{path.stem}-{MARK}-") + r"(.+)-(\d+)-[^-]+" + re.escape(path.suffix))
    removed = []
    for file in path.parent.glob(".*") if path.parent.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match is None:
            continue
        host, number = match.group(1), int(match.group(2))
        ours = host == host_name() and (number == os.getpid() or not is_running(number))
        with contextlib.suppress(FileNotFoundError):
            if ours or time.time() - file.stat().st_mtime > STALE:
                file.unlink()
                removed.append(str(file))
    return removed


def write_json(file: str, content: Any) -> None:
    """Write JSON; the file appears complete or not at all."""
    with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=2)


def check_named_files(
    inputs: Iterable[str | None], outputs: Iterable[tuple[str, str | None]], make_folders: bool = False
) -> None:
    """Check all files of a command before it does any work.

    Args:
        inputs: what it reads; None: an option that was not given.
        outputs: what it writes, each with the option that names it.
        make_folders: leave missing folders made.

    Raises:
        UserError: an output is an input or another output, or cannot be written.
    """
    seen = {Path(file).resolve() for file in inputs if file is not None}
    for flag, output in outputs:
        if output is None:
            continue
        if Path(output).resolve() in seen:
            raise UserError(f"{flag}: {output} would be overwritten: give every output a name of its own")
        seen.add(Path(output).resolve())
        check_writable(output, flag, make_folders)
