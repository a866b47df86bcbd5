"""``python -m quantization.upstream SCRIPT``: upstream's own scripts with the shims."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from quantization.errors import UserError
from quantization.upstream.offline import go_offline, network_refusal, patch_checks
from quantization.upstream.shims import install_shims, lift_time_limit


def main(arguments: list[str]) -> None:
    """Run an upstream script of the current folder with the shims installed; it installs and fetches nothing.

    Raises:
        UserError: there is no such script, or it would have to fetch something.
    """
    if not arguments:
        raise UserError("name a script of the checkout: python -m quantization.upstream val.py ...; --help says more")
    if arguments[0] in ("-h", "--help"):
        print(
            "usage: python -m quantization.upstream SCRIPT.py [ARGUMENT ...]\n"
            "Runs train.py, val.py, test.py, export.py ... of the checkout in the current folder on current packages.\n"
            "The script installs and fetches nothing: fonts come from matplotlib, weights and data must be there.\n"
            "It unpickles checkpoints and label caches as upstream does, which can run code: use files that you trust."
        )
        return
    if not Path(arguments[0]).is_file():
        raise UserError(f"{arguments[0]} does not exist: run this in an upstream checkout, with one of its scripts")
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    go_offline()
    install_shims(scripts=True)
    patch_checks(_value(arguments, "--data") or "data.yaml")
    lift_time_limit()
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except Exception as error:
        refused = network_refusal(error)
        if refused is None:
            raise
        raise refused from error


def _value(arguments: list[str], flag: str) -> str | None:
    """What a flag of the script is given, as ``--flag value`` or ``--flag=value``."""
    for word, following in zip(arguments, [*arguments[1:], ""]):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word[len(flag) + 1 :]
    return None


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
