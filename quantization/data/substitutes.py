"""Images that cannot be read any more while a training runs: others take their place, up to a limit."""

from __future__ import annotations

import logging
import threading
from typing import Any, Sequence

from quantization.data.images import read
from quantization.distributed import RANKS
from quantization.errors import UserError

LOG = logging.getLogger("quantization")
SHARE, FEWEST = 0.01, 10  # how many images may fail: this share of the data set, or this many if that is more


class Substitutes:
    """Reads images for a ``Loader``; the next image of the list that can be read takes the place of one that cannot.

    Batches keep their size and a resumed run its order. Which image takes the place follows from the list alone.

    Args:
        files: the training images.

    Attributes:
        failed: each image that could not be read, and why; those of other processes after ``share``.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = list(files)
        self._place = {file: place for place, file in enumerate(self._files)}
        self._limit = max(FEWEST, int(SHARE * len(self._files)))
        self._lock = threading.Lock()
        self.failed: dict[str, str] = {}

    def read(self, file: str, *arguments: Any) -> Any:
        """As ``images.read``.

        Raises:
            UserError: more images failed than may, or all of them.
        """
        start = self._place[file]
        for other in (*self._files[start:], *self._files[:start]):
            try:
                return read(other, *arguments)
            except UserError as error:
                self._note(other, str(error))
        raise UserError(f"no training image can be read any more: {self._first()}")

    def share(self) -> None:
        """Add what failed in the other processes. All call it at the same place.

        Raises:
            UserError: more images failed in all of them together than may.
        """
        with self._lock:
            own = dict(self.failed)
        for found in RANKS.exchange(own):
            for file, reason in found.items():
                self._note(file, reason)

    def _note(self, file: str, reason: str) -> None:
        with self._lock:
            if file in self.failed:
                return
            self.failed[file] = reason
            if len(self.failed) > self._limit:
                raise UserError(
                    f"{len(self.failed)} training images cannot be read any more, the first: {self._first()}; "
                    "check the disk or the network share that holds them"
                )
            LOG.warning("QAT goes on without an image: %s", reason)

    def _first(self) -> str:
        return next(iter(self.failed.values()))
