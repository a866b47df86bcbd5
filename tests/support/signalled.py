"""Programs that send themselves signals: python signalled.py CASE."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from quantization.errors import NotWritten, UserError, run_main
from quantization.signals import SIGNALS


def send(number: int) -> None:
    """A signal to this process; its handler runs before the next statement."""
    os.kill(os.getpid(), number)


class Dropping:
    """Python ignores what is raised while it goes."""

    def __del__(self) -> None:
        send(signal.SIGTERM)


def main(arguments: Sequence[str] | None) -> int:
    """One case."""
    case = sys.argv[1]
    if case in ("term", "int", "hup"):
        SIGNALS.hint = "; go on with: this"
        send(getattr(signal, f"SIG{case.upper()}"))
    elif case == "deferred":
        with SIGNALS.deferred():
            send(signal.SIGTERM)
            print("safe point", flush=True)
            SIGNALS.check()
        print("not reached")
    elif case == "no check":
        with SIGNALS.deferred():
            send(signal.SIGTERM)
            print("safe point", flush=True)
        print("not reached")
    elif case == "twice":
        with SIGNALS.deferred():
            send(signal.SIGTERM)
            send(signal.SIGINT)
            print("not reached")
    elif case == "swallowed":
        try:
            send(signal.SIGTERM)
        except:  # noqa: E722  # as libraries do it
            print("safe point", flush=True)
        SIGNALS.check()
        print("not reached")
    elif case == "dropped":
        signal.alarm(60)
        Dropping()
        print("safe point", flush=True)
        while True:
            signal.pause()
    elif case == "error":
        raise UserError("give another")
    elif case == "not written":
        raise NotWritten("done, but")
    elif case == "missing":
        raise ModuleNotFoundError("No module named 'PIL.Image'", name="PIL.Image")
    elif case == "missing own":
        raise ModuleNotFoundError("No module named 'models.yolo'", name="models.yolo")
    return 0


if __name__ == "__main__":
    run_main(main)
