"""Which entry of an annotation JSON an image file belongs to: the one whose name shares the longest path suffix."""

from __future__ import annotations

import os
import unicodedata
from pathlib import PurePosixPath
from typing import Callable, NamedTuple, Sequence
from urllib.parse import unquote, urlsplit

from quantization.data.listing import IMAGE_SUFFIXES
from quantization.errors import UserError


def _split(name: str) -> tuple[str, ...]:
    """The parts of a path as any tool writes it: slashes or backslashes, ``./``, or a URL."""
    if "://" in name:
        try:
            name = unquote(urlsplit(name).path)
        except ValueError:  # no URL after all
            pass
    name = unicodedata.normalize("NFC", name)  # macOS writes é as e and an accent
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _same_case(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.casefold() for part in parts)


def _without_suffix(parts: tuple[str, ...]) -> tuple[str, ...]:
    """For images that were converted to another format after the annotation."""
    *folders, last = _same_case(parts)
    path = PurePosixPath(last)
    return (*folders, path.stem if path.suffix[1:] in IMAGE_SUFFIXES else last)


class _Candidates(NamedTuple):
    entries: list[int]
    length: int  # parts that they share with the file


class _Index:
    """Entries that may be one of the files, by every suffix of their names."""

    def __init__(
        self,
        names: Sequence[tuple[str, ...]],
        files: Sequence[tuple[str, ...]],
        form: Callable[[tuple[str, ...]], tuple[str, ...]],
    ) -> None:
        self._form = form
        self._lengths = [len(name) for name in names]
        self._entries: dict[tuple[str, ...], list[int]] = {}
        wanted = {form(file)[-1] for file in files}
        for number, name in enumerate(map(form, names)):
            for start in range(len(name) if name[-1] in wanted else 0):
                self._entries.setdefault(name[start:], []).append(number)

    def best(self, file: tuple[str, ...]) -> _Candidates:
        """The entries that share the longest suffix; of several, those that the suffix is the whole name of."""
        parts = self._form(file)
        length = 0
        while length < len(parts) and parts[-length - 1 :] in self._entries:
            length += 1
        entries = self._entries[parts[-length:]] if length else []
        whole = [number for number in entries if self._lengths[number] == length]
        return _Candidates(whole or entries, length)


def match_files(files: Sequence[str], names: Sequence[str], source: str) -> list[int]:
    """Find every file's entry.

    Names are compared as they are and without regard to case, whichever shares more; file names that occur in neither
    way are compared without their suffix.

    Args:
        files: paths of the images.
        names: file names of the entries.
        source: the JSON, for messages.

    Returns:
        For each file the number of its entry.

    Raises:
        UserError: a file has no entry, or several; or several files have one.
    """
    parts = [_split(name) for name in names]
    empty = next((number for number, part in enumerate(parts) if not part), None)
    if empty is not None:
        raise UserError(f"{source}: image number {empty + 1} has the file name {names[empty]!r}")
    paths = [_split(os.path.abspath(file)) for file in files]
    exact, any_case, stems = (_Index(parts, paths, form) for form in (tuple, _same_case, _without_suffix))
    result: list[int] = []
    owners: dict[int, str] = {}
    for file, path in zip(files, paths):
        # of equal lengths, max takes the first
        found = max(exact.best(path), any_case.best(path), key=lambda candidates: candidates.length)
        entry = _the_one(found if found.entries else stems.best(path), names, file, source)
        owner = owners.setdefault(entry, file)
        if os.path.realpath(owner) != os.path.realpath(file):
            raise UserError(
                f"{source} lists {names[entry]} once, but {owner} and {file} both have this name: "
                "list both, with their folders in file_name"
            )
        result.append(entry)
    return result


def _the_one(found: _Candidates, names: Sequence[str], file: str, source: str) -> int:
    if not found.entries:
        raise UserError(f"{source} does not list {file}: annotations and images do not belong together")
    if len(found.entries) > 1:
        first, second = (f"{names[number]} (entry {number + 1})" for number in found.entries[:2])
        raise UserError(
            f"{source} lists two images that {file} may be, {first} and {second}: "
            "write their folders in file_name as far as they differ"
        )
    return found.entries[0]
