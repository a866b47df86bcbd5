"""Draw a TensorRT engine, or compare two: python scripts/draw-engine.py --layer=L.json --profile=P.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, run_main
from quantization.files import atomic_write
from quantization.inspector.compare import Comparison, compare
from quantization.inspector.drawing import render, to_dot
from quantization.inspector.layers import load_layers
from quantization.inspector.page import comparison_html, page, single_html
from quantization.inspector.report import comparison_text, marks, notes, sections, single_section, single_text
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph

FORMATS = ("svg", "png", "html")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=Path, required=True, help="trtexec --exportLayerInfo, verbosity detailed")
    parser.add_argument("--profile", type=Path, help="trtexec --exportProfile of the same engine: adds times")
    parser.add_argument("--output", type=Path, help="default: the layer file with .svg, or .compare.html, appended")
    parser.add_argument("--format", choices=FORMATS, help="default: the ending of --output; html pans and zooms")
    parser.add_argument("--compare", type=Path, metavar="LAYER", help="layer information of a second engine")
    parser.add_argument("--compare-profile", type=Path, metavar="PROFILE", help="its profile")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the engines; default: from the files")
    return parser.parse_args(arguments)


def load(layer: Path, profile: Path | None, name: str) -> EngineGraph:
    engine = load_layers(layer, name)
    if profile is not None:
        add_profile(engine, profile)
    for note in engine.notes:
        print(f"note: {note}", file=sys.stderr)
    return EngineGraph(engine)


def choose_output(options: argparse.Namespace) -> None:
    """Fill in ``--output`` and ``--format`` from each other."""
    ending = options.output.suffix[1:].lower() if options.output else ""
    if not options.format:
        if options.output and ending not in FORMATS:
            raise UserError(f"--output {options.output} ends in none of {', '.join(FORMATS)}: give --format")
        options.format = ending or ("html" if options.compare else "svg")
    if not options.output:
        options.output = Path(f"{options.layer}{'.compare' if options.compare else ''}.{options.format}")


def draw_comparison(comparison: Comparison, file_format: str) -> bytes:
    found, graphs = sections(comparison), comparison.graphs
    if file_format != "html":
        return render(to_dot(graphs, comparison.aligned, marks(found), notes(found)), file_format)
    drawing = render(to_dot(graphs, comparison.aligned, marks(found)), "svg")
    return page(drawing, graphs, comparison_html(comparison)).encode("utf-8")


def draw_one(graph: EngineGraph, file_format: str) -> bytes:
    found = single_section(graph)
    if file_format != "html":
        return render(to_dot([graph], marks=marks(found), notes=notes(found)), file_format)
    return page(render(to_dot([graph], marks=marks(found)), "svg"), [graph], single_html(graph)).encode("utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.compare_profile and not options.compare:
        raise UserError("--compare-profile needs --compare: the layer information of the second engine")
    names: list[str] = options.names or ["", ""]
    if options.names and len(names) != (2 if options.compare else 1):
        raise UserError(f"--names takes one name per engine, {len(names)} given")
    choose_output(options)
    graph = load(options.layer, options.profile, names[0])
    if options.compare:
        comparison = compare(graph, load(options.compare, options.compare_profile, names[1]))
        print(comparison_text(comparison))
        picture = draw_comparison(comparison, options.format)
    else:
        print(single_text(graph))
        picture = draw_one(graph, options.format)
    with atomic_write(options.output) as temporary:
        Path(temporary).write_bytes(picture)
    print(f"\nwrote {options.output}")
    return 0


if __name__ == "__main__":
    run_main(main)
