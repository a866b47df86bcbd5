"""Work in order for several threads, where some of it has to wait for other work."""

from __future__ import annotations

import threading
from typing import Callable, Iterable, Mapping


class JobOrder:
    """Hands out names; what comes after a name that failed is left out.

    Args:
        names: in the order in which they are started, each after the one that it waits for.
        after: names to the names that they wait for; others than ``names`` are not waited for.
    """

    def __init__(self, names: Iterable[str], after: Mapping[str, str]) -> None:
        self._waiting, self._changed = list(names), threading.Condition()
        self._after = {name: first for name, first in after.items() if first in self._waiting}
        self._succeeded: dict[str, bool] = {}

    def work_off(self, work: Callable[[str], bool]) -> None:
        """Call ``work`` with one name after the other until none is left; it says whether it succeeded.

        An exception of it counts as a failure, and is passed on.
        """
        while True:
            name = self._take()
            if name is None:
                return
            success = False
            try:
                success = work(name)
            finally:
                with self._changed:
                    self._succeeded[name] = success
                    self._changed.notify_all()

    def _take(self) -> str | None:
        """The first name that need not wait, as soon as there is one; None: none is left."""
        with self._changed:
            while True:
                for name in list(self._waiting):
                    ready = self._succeeded.get(self._after[name]) if name in self._after else True
                    if ready is not None:
                        self._waiting.remove(name)
                    if ready:
                        return name
                    if ready is False:
                        self._succeeded[name] = False
                if not self._waiting:
                    return None
                self._changed.wait()
