"""``python -m quantization.upstream SCRIPT``: upstream's own scripts with the shims."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from quantization.errors import UserError
from quantization.upstream.shims import install_shims


def main(arguments: list[str]) -> None:
    """Run an upstream script of the current folder with the shims installed."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: python -m quantization.upstream SCRIPT.py [ARGUMENT ...]\n"
            "Runs train.py, val.py, test.py, export.py ... of the checkout in the current folder on current packages."
        )
        return
    if not Path(arguments[0]).is_file():
        raise UserError(f"{arguments[0]} does not exist: run this in an upstream checkout, with one of its scripts")
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    install_shims()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
