"""Image files of folders and lists, found as upstream's LoadImagesAndLabels finds them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Sequence

from quantization.errors import UserError
from quantization.text import read_text

LOG = logging.getLogger("quantization")
# IMG_FORMATS of yolov5; yolov7 has them without pfm, which Pillow's check drops in either
IMAGE_SUFFIXES = ("bmp", "dng", "jpeg", "jpg", "mpo", "pfm", "png", "tif", "tiff", "webp")
OTHER_PICTURES = ("avif", "exr", "gif", "heic", "heif", "hdr", "jfif", "jp2", "pgm", "pnm", "ppm")  # not read upstream


def find_images(sources: Sequence[Path], what: str) -> list[str]:
    """Absolute paths of the images of folders (with their subfolders) and .txt lists, each once.

    The path is what identifies an image, as in upstream: links to one file are different images.

    Args:
        sources: folders and lists.
        what: what the user named, for messages.

    Raises:
        UserError: a source is missing or holds no image, or a listed image does not exist.
    """
    found: list[str] = []
    for source in sources:
        if source.is_dir():
            files = _images_of_folder(_labelled_spelling(source), what)
        elif source.is_file():
            files = _images_of_list(source)
        else:
            raise UserError(f"{source} does not exist: name a folder of images, a .txt list or a data.yaml")
        if not files:
            raise UserError(f"{source} lists no images ({', '.join(IMAGE_SUFFIXES)}): check the path")
        found += files
    unique = list(dict.fromkeys(found))
    if len(unique) < len(found):
        first = next(file for file, count in Counter(found).items() if count > 1)
        LOG.warning(
            "%s: %d repeated images count once, as upstream counts them (first: %s)",
            what,
            len(found) - len(unique),
            first,
        )
    return unique


def _absolute(path: str) -> str:
    """An absolute path; links are resolved only where ``..`` would step over one."""
    if os.pardir in Path(path).parts:
        return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return os.path.abspath(path)


def _labelled_spelling(folder: Path) -> str:
    """The folder's path, or what it links to if only that has /labels/ for /images/: yolov5 resolves it, yolov7 not."""
    plain, resolved = _absolute(str(folder)), os.path.realpath(folder)

    def has_labels(path: str) -> bool:
        changed = f"{os.sep}labels{os.sep}".join(f"{path}{os.sep}".rsplit(f"{os.sep}images{os.sep}", 1))
        return changed != f"{path}{os.sep}" and os.path.isdir(changed)

    return resolved if has_labels(resolved) and not has_labels(plain) else plain


def _images_of_folder(folder: str, what: str) -> list[str]:
    """As ``glob(folder/**/*.*)``: linked folders are entered, hidden files and folders are not."""
    files: list[str] = []
    others: Counter[str] = Counter()
    pending = [(folder, frozenset({_identity(folder)}))]
    while pending:
        current, above = pending.pop()
        try:
            with os.scandir(current) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(f"{current} cannot be read ({error.strerror}): check its permissions") from error
        for entry in visible:
            suffix = entry.name.rsplit(".", 1)[-1].lower() if "." in entry.name else ""
            if entry.is_dir():
                identity = _identity(entry.path)
                if identity in above:
                    LOG.warning("%s: %s links to a folder above it and is not entered", what, entry.path)
                else:
                    pending.append((entry.path, above | {identity}))
            elif suffix in IMAGE_SUFFIXES:
                files.append(entry.path)
            elif suffix in OTHER_PICTURES:
                others[f".{suffix}"] += 1
    if others:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        LOG.warning("%s: %s skips %s: upstream does not read these formats", what, folder, listed)
    return sorted(files)


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _images_of_list(listing: Path) -> list[str]:
    """The lines of a list that name images; blank lines and # comments are allowed."""
    files: list[str] = []
    others: list[str] = []
    for number, line in enumerate(read_text(listing).splitlines(), 1):
        entry = line.strip()
        if not entry:
            continue
        file = _listed(listing, entry)
        if entry.startswith("#") and file is None:
            continue
        if entry.rsplit(".", 1)[-1].lower() not in IMAGE_SUFFIXES:
            others.append(entry)
        elif file is None:
            raise UserError(
                f"{listing}, line {number}, lists {entry}, which does not exist: "
                "write absolute paths, or ./ and the path from the list's folder"
            )
        else:
            files.append(_absolute(file))
    if others:
        LOG.warning("%s: %d lines that are not images are skipped (first: %s)", listing, len(others), others[0])
    return files


def _listed(listing: Path, entry: str) -> str | None:
    """Where an entry lies; None: nowhere. Upstream reads ./x from the list's folder and x from the current one."""
    beside = [
        os.path.join(folder, entry) for folder in (str(listing.parent), os.path.dirname(os.path.realpath(listing)))
    ]
    candidates = [*beside, entry] if entry.startswith("./") else [entry, *beside]
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
