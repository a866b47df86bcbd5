"""The bundle's progress bars: on a terminal alone, so that a log or a pipe holds no redrawn lines."""

from __future__ import annotations

import os
from typing import Any, Iterable

from tqdm import tqdm

DISABLE = "TQDM_DISABLE"  # tqdm's own variable, which the argument below outvotes; --quiet sets it


def progress_bar(
    items: Iterable[Any] | None = None, *, title: str, unit: str, total: int | None = None, done: int = 0
) -> Any:
    """A tqdm bar, which disappears when it ends.

    Args:
        items: what is iterated; None: the caller calls ``update``.
        title: what is being done.
        unit: of an item, singular.
        total: how many there are; None: the length of ``items``, if it has one.
        done: how many were done before.
    """
    # None: tqdm is silent where stderr is no terminal
    disable = None if os.environ.get(DISABLE, "0") in ("", "0") else True
    return tqdm(items, total=total, desc=title, unit=unit, initial=done, leave=False, disable=disable)
