"""One timing cache for all builds of a process, so that a kernel that several engines could use is timed once."""

from __future__ import annotations

import os
from typing import Any

from quantization.files import atomic_write


class TimingCache:
    """TensorRT's tactic timings, shared by the builders of a process and kept in a file if one is named.

    Engines that are compared then also get the same kernel for the same convolution, where each would otherwise choose
    by a measurement of its own.

    Args:
        path: file, read if it exists and written by ``save``; None: for this process only.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Let a builder config use the cache."""
        if self._cache is None:
            self._cache = config.create_timing_cache(self._content())
        if self._cache is None or not config.set_timing_cache(self._cache, False):
            # one of another TensorRT or GPU is refused; start an empty one then, as trtexec does
            print(f"timing cache {self.path or ''} is of another TensorRT or GPU: an empty one replaces it")
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)

    def save(self) -> None:
        """Write the file, if one is named and there was a build."""
        if self.path is not None and self._cache is not None:
            with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
                file.write(bytes(self._cache.serialize()))

    def _content(self) -> bytes:
        if self.path is None or not os.path.isfile(self.path):
            return b""
        with open(self.path, "rb") as file:
            return file.read()
