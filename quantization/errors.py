"""What every script shares: errors that a user can fix, messages, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from typing import Callable, Sequence

from quantization.signals import SIGNALS, Stopped


class UserError(Exception):
    """Bad input. The message is one line that names the file, layer or flag and the remedy."""

    code = 2


class NotWritten(UserError):
    """The work is done, but something could not be written. One line that names it and the remedy."""

    code = 1


def run_main(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a script's ``main`` and exit, with one line on stderr where it does not end well.

    Exit codes: 2 for a ``UserError``, 1 for ``NotWritten``, 143 for SIGTERM, 130 for Ctrl-C. Scripts import what takes
    long inside ``main``, so that a signal during the import ends in one line too.

    Args:
        main: takes an argument list (None: ``sys.argv[1:]``) and returns the exit code.
    """
    SIGNALS.install()
    try:
        code = main(None)
        SIGNALS.finish()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code
    except Stopped as stop:
        print(f"stopped by {stop}{SIGNALS.hint}", file=sys.stderr)
        code = stop.code
    except KeyboardInterrupt:  # handlers are not ours outside the main thread
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # the reader (`| head`) has gone; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def log_to_stdout(quiet: bool = False) -> None:
    """Print the bundle's messages, as they are, to stdout.

    Args:
        quiet: of the messages only warnings and how a command ends.
    """
    logger = logging.getLogger("quantization")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("quantization.closing").setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
