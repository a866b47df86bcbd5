"""What was made of a tensor already, found again by the tensor itself."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor


class TensorMemo:
    """Values for the tensors of one forward pass, by identity.

    It keeps no tensor alive, and does not find one that is gone or was changed in place since.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[Any, int, Any]] = []  # weak reference, version, value

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, x: Tensor) -> Any | None:
        """The value of ``x``; None if it has none."""
        for reference, version, value in self._entries:
            if reference() is x and version == x._version:  # noqa: SLF001  torch has no public name for it
                return value
        return None

    def add(self, x: Tensor, value: Any) -> None:
        """Remember a value for ``x``."""
        self._entries.append((weakref.ref(x), x._version, value))  # noqa: SLF001

    def clear(self) -> None:
        """Call after each pass: the next one brings other tensors, and a value may hold its graph."""
        self._entries = []
