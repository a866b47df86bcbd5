"""Draw a TensorRT engine, or compare two: python scripts/draw-engine.py --layer=L.json --profile=P.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, one_line_ending, run_main

with one_line_ending():
    from quantization.closing import Closing, closing_text
    from quantization.dot import render
    from quantization.files import atomic_write, check_named_files
    from quantization.inspector.compare import compare_engines
    from quantization.inspector.drawing import engine_dot
    from quantization.inspector.layers import load_layers
    from quantization.inspector.page import engine_page
    from quantization.inspector.report import EngineReport, report_comparison, report_engine
    from quantization.inspector.text import engine_text
    from quantization.inspector.times import add_profile
    from quantization.inspector.topology import EngineGraph

FORMATS = ("svg", "png", "html")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=Path, required=True, help="trtexec --exportLayerInfo, verbosity detailed")
    parser.add_argument("--profile", type=Path, help="trtexec --exportProfile of the same engine: adds times")
    parser.add_argument("--output", type=Path, help="default: the layer file with .svg, or .compare.html, appended")
    parser.add_argument("--format", choices=FORMATS, help="default: the ending of --output; html pans and zooms")
    parser.add_argument("--compare", type=Path, metavar="LAYER", help="layer information of a second engine")
    parser.add_argument("--compare-profile", type=Path, metavar="PROFILE", help="its profile")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the engines; default: from the files")
    parser.add_argument(
        "--profile-index",
        type=int,
        nargs="+",
        metavar="N",
        help="which optimization profile of an engine with several, counted from 0; of two engines one number for "
        "both, or one for each; default: the first",
    )
    return parser.parse_args(arguments)


def check_arguments(options: argparse.Namespace) -> None:
    """Refuse what does not fit together, and fill in ``--output`` and ``--format`` from each other."""
    engines = 2 if options.compare else 1
    if options.compare_profile and not options.compare:
        raise UserError("--compare-profile needs --compare: the layer information of the second engine")
    if options.names and len(options.names) != engines:
        raise UserError(f"--names takes one name per engine, {len(options.names)} given")
    if options.profile_index and len(options.profile_index) not in (1, engines):
        raise UserError(f"--profile-index takes one number per engine, {len(options.profile_index)} given")
    ending = options.output.suffix[1:].lower() if options.output else ""
    if not options.format:
        if options.output and ending not in FORMATS:
            raise UserError(f"--output {options.output} ends in none of {', '.join(FORMATS)}: give --format")
        options.format = ending or ("html" if options.compare else "svg")
    if ending in FORMATS and ending != options.format:
        raise UserError(f"--format {options.format} contradicts the ending of --output {options.output}: drop one")
    if not options.output:
        options.output = Path(f"{options.layer}{'.compare' if options.compare else ''}.{options.format}")
    read = (options.layer, options.profile, options.compare, options.compare_profile)
    check_named_files(read, [("--output", options.output)])


def load(layer: Path, profile: Path | None, name: str, profile_index: int | None) -> EngineGraph:
    """Read one engine; print notes about its files."""
    engine = load_layers(layer, name, profile_index)
    if profile is not None:
        engine = add_profile(engine, profile)
    for note in engine.notes:
        print(f"note: {note}", file=sys.stderr)
    return EngineGraph(engine)


def make_report(options: argparse.Namespace) -> EngineReport:
    """Read the files and say what is in them."""
    names: list[str] = options.names or ["", ""]
    indices: list[int | None] = options.profile_index or [None]
    graph = load(options.layer, options.profile, names[0], indices[0])
    if not options.compare:
        return report_engine(graph)
    return report_comparison(
        compare_engines(graph, load(options.compare, options.compare_profile, names[1], indices[-1]))
    )


def draw(report: EngineReport, file_format: str) -> bytes:
    """The content of the output file."""
    if file_format != "html":
        return render(engine_dot(report), file_format)
    return engine_page(report, render(engine_dot(report, notes=False), "svg")).encode("utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture or the page, then print the report."""
    options = parse_arguments(arguments)
    check_arguments(options)
    report = make_report(options)
    try:
        picture = draw(report, options.format)
        with atomic_write(options.output) as temporary:
            Path(temporary).write_bytes(picture)
    finally:
        print(engine_text(report))  # it is of use where there is no Graphviz too
    what = "page: open it in a browser" if options.format == "html" else "drawing of the engine"
    print(closing_text(Closing(written={str(options.output): what})))
    return 0


if __name__ == "__main__":
    run_main(main)
