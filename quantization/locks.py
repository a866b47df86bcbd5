"""Locks on output files, so that two runs never write the same ones. stdlib only."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Iterable

from quantization.errors import UserError
from quantization.files import missing_folders, remove_empty
from quantization.processes import is_running

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # its absence is what is asked below


class OutputLocks:
    """Context in which this process alone writes some files.

    A lock is a file ``.NAME.lock`` beside NAME that holds the process id. The kernel gives it up when the process ends,
    however it ends (flock); where there is no flock, a lock whose process has gone is taken over.

    Args:
        files: the outputs.

    Raises, on entering:
        UserError: another process holds one; the message has its id.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = [Path(file).resolve() for file in files]
        self._held: list[tuple[Path, int]] = []
        self._folders: list[Path] = []

    def __enter__(self) -> OutputLocks:
        try:
            for file in self._files:
                self._folders = [*missing_folders(file.parent), *self._folders]
                self._take(file)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _take(self, file: Path) -> None:
        lock = file.with_name(f".{file.name}.lock")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = _try(lock)
        except OSError as error:
            raise UserError(f"{lock} cannot be written ({error.strerror}): choose another place") from error
        if handle is None:
            raise UserError(
                f"{file} is being written by process {_holder(lock) or 'unknown'}: wait for it, or name other outputs"
            )
        self._held.append((lock, handle))
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())

    def _release(self) -> None:
        while self._held:
            lock, handle = self._held.pop()
            with contextlib.suppress(OSError):  # gone with its folder
                if os.path.samestat(os.fstat(handle), os.stat(lock)):
                    lock.unlink()  # while it is held: who waits for it sees that it has gone
            os.close(handle)
        remove_empty(self._folders)


def _try(lock: Path) -> int | None:
    """The handle of a lock file that is ours now; None: another process holds it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = _flock(handle) if fcntl is not None else None
            if taken is None:  # this file system or platform has no flock
                number = _holder(lock)
                taken = not number or number == os.getpid() or not is_running(number)
            if taken and os.path.samestat(os.fstat(handle), os.stat(lock)):
                kept, handle = handle, -1
                return kept
            if not taken:
                return None
        except FileNotFoundError:
            pass  # its holder removed it between our two calls: make another
        finally:
            if handle >= 0:
                os.close(handle)


def _flock(handle: int) -> bool | None:
    """Whether the lock is ours; None: this file system cannot tell."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None


def _holder(lock: Path) -> int:
    """The process id in a lock file; 0: there is none."""
    try:
        text = lock.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdigit() else 0
