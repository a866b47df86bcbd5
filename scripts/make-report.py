"""The report of a run folder, again, with what was added since: python scripts/make-report.py DIR. No torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.closing import Closing, closing_text
from quantization.errors import run_main
from quantization.report.page import write_report


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make-report.py", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="folder that deploy --out, or quantize --summary, wrote to")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit code."""
    file = write_report(build_parser().parse_args(arguments).folder)
    print(closing_text(Closing(written={file: "the report: open it in a browser"})))
    return 0


if __name__ == "__main__":
    run_main(main)
