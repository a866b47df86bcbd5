"""SIGTERM, SIGHUP and Ctrl-C: work stops at once, or at the next safe point where it asked for that. stdlib only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any, Iterator

RETRY = 0.1  # seconds
NAMES = ("SIGTERM", "SIGINT", "SIGHUP")  # the last one: a terminal that goes away; Windows has none


class Stopped(BaseException):
    """A signal asks the process to end. Like KeyboardInterrupt, no ``except Exception`` catches it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)

    @property
    def code(self) -> int:
        """The exit code that shells expect: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.number


class StopSignals:
    """The first signal raises ``Stopped``, or waits for ``check`` inside ``deferred``; the second ends the process.

    A library may swallow an exception that it does not expect (a bare ``except:``), so long work calls ``check`` between
    its stages too.

    Attributes:
        hint: what the message says after the signal's name, e.g. how to resume.
    """

    def __init__(self) -> None:
        self.hint = ""
        self._requested: int | None = None
        self._deferred = 0
        self._dropped = False  # whether Python has ignored the exception

    def install(self) -> None:
        """Take the signals over, but for those that the parent told the process to ignore (nohup)."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread only
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.receive)
        sys.unraisablehook = self._unraisable

    def receive(self, number: int, frame: Any = None) -> None:
        """The handler."""
        if self._requested is not None and not self._dropped:
            os._exit(128 + number)
        self._requested, self._dropped = number, False
        if not self._deferred:
            raise Stopped(number)

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._requested is not None

    @property
    def number(self) -> int:
        """Of the signal that has come; 0: none has."""
        return self._requested or 0

    def request(self, number: int) -> None:
        """Take it as if this signal had come, if none has; 0: nothing happens."""
        self._requested = self._requested or number or None

    def check(self) -> None:
        """A safe point: raises ``Stopped`` if a signal has come."""
        if self._requested is not None:
            self._dropped = False
            raise Stopped(self._requested)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Context in which a first signal waits for ``check``."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1
        if not self._deferred:
            self.check()

    def _unraisable(self, found: sys.UnraisableHookArgs) -> None:
        """Python has ignored an exception, in a ``__del__`` or a weak reference's callback: ``Stopped`` is raised again."""
        if not isinstance(found.exc_value, Stopped):
            sys.__unraisablehook__(found)
            return
        self._dropped = True
        timer = threading.Timer(RETRY, self._again, (found.exc_value.number,))
        timer.daemon = True
        timer.start()

    def _again(self, number: int) -> None:
        if self._dropped:  # else a ``check`` came first
            os.kill(os.getpid(), number)  # it wakes the main thread, as raise_signal in this one would not

    def finish(self) -> None:
        """The work is done: a first signal changes nothing any more."""
        self._deferred += 1


SIGNALS = StopSignals()
