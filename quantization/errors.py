"""What every script shares: errors that a user can fix, messages, exit codes."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Callable, Iterator, Sequence

from quantization.signals import SIGNALS, Stopped
from quantization.streams import outlive_readers


class UserError(Exception):
    """Bad input. The message is one line that names the file, layer or flag and the remedy."""

    code = 2


class NotWritten(UserError):
    """The work is done, but something could not be written. One line that names it and the remedy."""

    code = 1


# top-level modules whose package is called otherwise
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "Pillow", "yaml": "PyYAML"}
# top-level modules of a checkout, which no package manager installs
OWN = ("quantization", "models", "utils")


def missing_package(error: ImportError) -> str:
    """What to install for a module that does not import: the package's name, or the error's text where it names none."""
    module = (error.name or "").partition(".")[0]
    return PACKAGES.get(module, module) or str(error)


def lacks_package(error: Exception) -> bool:
    """Whether a package is missing that pip installs: no module of a checkout, of a package or of Python (as _lzma is)."""
    name = (isinstance(error, ModuleNotFoundError) and error.name) or "."
    return not ("." in name or name in OWN or name.startswith("_"))


def _not_installed(error: ModuleNotFoundError) -> str:
    """The line for a package that this Python lacks."""
    package = missing_package(error)
    return f"{sys.executable} lacks {package}: pip install {package}, or -r requirements.txt of quant-tools and of the checkout"


@contextlib.contextmanager
def one_line_ending() -> Iterator[None]:
    """Context in which what stops a script ends the process, with one line on stderr.

    Exit codes: 2 for a ``UserError`` and for a package that is not installed, 1 for ``NotWritten``, 143 for SIGTERM, 130
    for Ctrl-C. Scripts import what takes long inside it, so that a signal or a missing package meanwhile ends in one line
    too. A reader of the output that goes ends nothing.
    """
    SIGNALS.install()
    outlive_readers()
    try:
        yield
        return
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.code
    except ModuleNotFoundError as error:
        if not lacks_package(error):
            raise
        print(f"error: {_not_installed(error)}", file=sys.stderr)
        code = UserError.code
    except Stopped as stop:
        print(f"stopped by {stop}{SIGNALS.hint}", file=sys.stderr)
        code = stop.code
    except KeyboardInterrupt:  # handlers are not ours outside the main thread
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def run_main(main: Callable[[Sequence[str] | None], int]) -> None:
    """Run a script's ``main`` in ``one_line_ending`` and exit.

    Args:
        main: takes an argument list (None: ``sys.argv[1:]``) and returns the exit code.
    """
    with one_line_ending():
        code = main(None)
        SIGNALS.finish()
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
