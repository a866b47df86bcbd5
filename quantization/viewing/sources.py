"""Where the images come from: files, folders, lists, or the frames of a video, all checked before any work."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Protocol, Sequence, Tuple

import cv2
import numpy as np

from quantization.data.headers import decode_image, image_fault
from quantization.data.listing import IMAGE_SUFFIXES, find_images
from quantization.errors import UserError

LOG = logging.getLogger("quantization")
VIDEO_SUFFIXES = (
    "asf",
    "avi",
    "m4v",
    "mkv",
    "mov",
    "mp4",
    "mpeg",
    "mpg",
    "ts",
    "webm",
    "wmv",
)  # as detect.py, and webm

NamedImage = Tuple[str, np.ndarray]  # name for people, (H, W, 3) uint8 BGR


class Source(Protocol):
    """Images; iterate as often as you like, the order stays."""

    def __len__(self) -> int:
        """How many there are; of a video what its header says."""

    def __iter__(self) -> Iterator[NamedImage]:
        """All images, one after the other."""


@dataclass(frozen=True)
class ImageFiles:
    """Images in files.

    Attributes:
        files: their paths; all can be read.
    """

    files: Sequence[str]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[NamedImage]:
        for file in self.files:
            image = decode_image(file)
            if image is None:
                raise UserError(f"{file} cannot be read any more: leave it where it is while this runs")
            yield file, image


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video.

    Attributes:
        file: the video.
        every: every n-th frame is taken.
    """

    file: str
    every: int

    def __len__(self) -> int:
        capture = _opened(self.file)
        frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()
        return -(-frames // self.every)

    def __iter__(self) -> Iterator[NamedImage]:
        capture = _opened(self.file)
        number = 0
        while capture.grab():
            if number % self.every == 0:
                found, image = capture.retrieve()
                if found:
                    yield f"{Path(self.file).name} frame {number}", image
                else:
                    LOG.warning("WARNING: %s: frame %d cannot be decoded and is left out", self.file, number)
            number += 1
        capture.release()


def open_source(named: Sequence[str], every: int) -> Source:
    """The images that a user names.

    Args:
        named: images, folders, .txt lists, or one video.
        every: of a video every n-th frame.

    Raises:
        UserError: something named does not exist, is neither, or holds nothing that can be read.
    """
    if any(_suffix(name) in VIDEO_SUFFIXES for name in named if not Path(name).is_dir()):
        if len(named) > 1:
            raise UserError(f"{len(named)} sources with a video among them: give a video alone")
        capture = _opened(named[0])
        found = capture.grab()
        capture.release()
        if not found:
            raise UserError(
                f"{named[0]} has no frame that OpenCV can read: convert it, for example with ffmpeg to .mp4"
            )
        return VideoFrames(named[0], every)
    if every > 1:
        raise UserError("--every would have no effect without a video: leave it out")
    return ImageFiles(_readable([file for name in named for file in _files(name)]))


def _suffix(name: str) -> str:
    return Path(name).suffix[1:].lower()


def _files(name: str) -> list[str]:
    path = Path(name)
    if path.is_file() and _suffix(name) not in (*IMAGE_SUFFIXES, "txt"):
        raise UserError(
            f"{name} is no image ({', '.join(IMAGE_SUFFIXES)}), video ({', '.join(VIDEO_SUFFIXES)}), folder or .txt list"
        )
    if path.is_file() and _suffix(name) != "txt":
        fault = image_fault(name)
        if fault:
            raise UserError(f"{fault}: leave it out")
        return [name]
    return find_images([path], name)


def _readable(files: Sequence[str]) -> list[str]:
    """Each file once, without those that cannot be read, of which folders may have some."""
    faults = {file: image_fault(file) for file in dict.fromkeys(files)}
    good = [file for file, fault in faults.items() if not fault]
    bad = [fault for fault in faults.values() if fault]
    if bad:
        LOG.warning("WARNING: %d of %d images are left out (first: %s)", len(bad), len(faults), bad[0])
    if not good:
        raise UserError(f"no image can be read ({bad[0]}): name others")
    return good


def _opened(file: str) -> Any:
    capture = cv2.VideoCapture(file)
    if not capture.isOpened():
        reason = "is not a video that OpenCV can read" if Path(file).is_file() else "does not exist"
        raise UserError(f"{file} {reason}: name another file, or convert it, for example with ffmpeg to .mp4")
    return capture
