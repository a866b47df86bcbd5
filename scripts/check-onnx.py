"""Check a Q/DQ ONNX before an engine is built: python scripts/check-onnx.py FILE.onnx. Exit code 1: a check failed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.dot import render
from quantization.errors import UserError, run_main
from quantization.files import atomic_write, check_writable
from quantization.onnx_graph.load import load_onnx
from quantization.onnx_graph.module_path import path_matcher
from quantization.preflight.drawing import to_dot
from quantization.preflight.report import preflight, report_text

PICTURES = (".svg", ".png")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("onnx", metavar="FILE.onnx", help="a Q/DQ ONNX, of this bundle or of another tool")
    parser.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="REGEX",
        help="paths of layers left in float on purpose, as in --ignore-policy; the head may be, and what the file itself names",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the graph by scale group: .svg or .png")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print and write; the exit code."""
    options = parse_arguments(arguments)
    is_float = path_matcher(options.ignore, "--ignore")
    if options.draw is not None and options.draw.suffix.lower() not in PICTURES:
        raise UserError(f"--draw {options.draw} ends in none of {', '.join(PICTURES)}: name a picture")
    for flag, file in (("--json", options.json), ("--draw", options.draw)):
        if file is not None:
            check_writable(file, flag)
    model = load_onnx(options.onnx)
    report = preflight(model, is_float)
    print(report_text(report))
    if options.json is not None:
        with atomic_write(options.json) as temporary:
            Path(temporary).write_text(json.dumps(report.to_dict(), indent=2), encoding="utf-8")
    if options.draw is not None:
        picture = render(to_dot(model), options.draw.suffix[1:].lower())
        with atomic_write(options.draw) as temporary:
            Path(temporary).write_bytes(picture)
    return 1 if report.failed else 0


if __name__ == "__main__":
    run_main(main)
