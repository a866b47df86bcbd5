"""Check a Q/DQ ONNX before an engine is built: python scripts/check-onnx.py FILE.onnx. Exit code 1: a check failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, one_line_ending, run_main

with one_line_ending():
    from quantization.closing import Closing, closing_text, command_line
    from quantization.dot import render
    from quantization.files import atomic_write, check_named_files, write_json
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
    check_named_files([options.onnx], [("--json", options.json), ("--draw", options.draw)])
    model = load_onnx(options.onnx)
    report = preflight(model, is_float)
    written = {}
    try:
        if options.json is not None:
            write_json(options.json, report.to_dict())
            written[str(options.json)] = "the report"
        if options.draw is not None:
            picture = render(to_dot(model), options.draw.suffix[1:].lower())
            with atomic_write(options.draw) as temporary:
                Path(temporary).write_bytes(picture)
            written[str(options.draw)] = "the graph, a colour for each scale group"
    finally:
        print(report_text(report))  # it is of use where there is no Graphviz too
    bench = command_line("bench-engine.py", options.onnx, "--modes", "qat", "--save-engine", "plans")
    following = ["change what FAIL names above, and export again"] if report.failed else ["on the target:", bench]
    print(closing_text(Closing(written=written, following=following)))
    return 1 if report.failed else 0


if __name__ == "__main__":
    run_main(main)
