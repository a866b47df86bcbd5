"""What every script shares: errors that a user can mend, messages, and output files that are never half written."""

from __future__ import annotations

import logging
import os
import sys
from typing import Callable, Sequence


class UserError(Exception):
    """Bad input. The message is one line that names the file, layer or flag and the remedy."""


def run_main(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a script's ``main`` and exit: 2 with one line on stderr for a ``UserError``, 130 for Ctrl-C.

    Args:
        main: takes an argument list (None: ``sys.argv[1:]``) and returns the exit code.
    """
    try:
        code = main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # the reader (`| head`) has gone; keep the interpreter from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def log_to_stdout() -> None:
    """Print the bundle's messages, as they are, to stdout."""
    logger = logging.getLogger("quantization")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
