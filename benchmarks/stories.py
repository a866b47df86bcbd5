"""The published findings as small pictures, drawn from the engines and results in benchmarks/results; needs no GPU.

python benchmarks/stories.py --out imgs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Callable, Sequence

from bundle import BUNDLE
from engines import TITLES, needed
from story_charts import sensitivity_chart, speed_chart
from story_drawing import Story, story_dot
from story_qat import qat_chart

from quantization.dot import render
from quantization.errors import run_main
from quantization.files import atomic_write
from quantization.inspector.layers import load_layers, read_export
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph
from quantization.pictures import save_figure

MAIN = {name: TITLES[name] for name in ("ptq", "no-rule", "rule")}
STORIES = (
    Story(
        "story-concat",
        "yolov7: a branch of the first Concat",
        "yolov7",
        MAIN,
        ("model.7", "model.8", "model.9"),
        "model.6",
        "Concat, model.11",
    ),
    Story(
        "story-maxpool",
        "yolov7: a MaxPool and a convolution that read one tensor",
        "yolov7",
        {name: MAIN[name] for name in ("no-rule", "rule")},  # implicit PTQ looks as the rules do
        ("model.11", "model.12", "model.13", "model.14"),
        "Concat",
    ),
    Story(
        "story-shortcut",
        "yolov5s: a shortcut sum",
        "yolov5s-h200",
        {
            "ptq": TITLES["ptq"],
            "shortcut": "shortcut operand alone",
            "groups": "both operands, the default",
        },
        ("model.8.cv1", "model.8.m.0"),
        "model.7",
        "Concat, model.8.cv3",
    ),
    Story(
        "story-stem",
        "yolov5s: the convolution that reads the image",
        "yolov5s",
        {"ptq": TITLES["ptq"], "no-rule": "stem in INT8", "rule": "stem in float, the default"},
        ("model.0",),
        "image",
        "model.1",
    ),
)


def story_picture(story: Story, results: Path) -> bytes:
    """A story as SVG.

    Args:
        story: what is drawn.
        results: with ``engines/NET``.

    Raises:
        UserError: a file is missing or not of this network, or Graphviz is.
    """
    net = results / "engines" / story.net
    models, bench = read_export(needed(net, "models.json")), read_export(needed(net, "bench.json"))
    graphs = []
    for name in story.engines:
        engine = load_layers(needed(net, f"{name}-layer.json"), story.engines[name])
        graphs.append(EngineGraph(add_profile(engine, needed(net, f"{name}-profile.json"))))
    conditions = (
        f"{bench['gpu']}, TensorRT {bench['versions']['tensorrt']}, {models['size']} x {models['size']}, batch "
        f"{bench['batch']}, {models['weights']} weights"
    )
    return render(story_dot(story, graphs, conditions), "svg")


def charts(results: Path) -> dict[str, Callable[[], Any]]:
    """Name of each chart to what draws it."""
    return {
        "story-speed": lambda: speed_chart(results / "engines" / "yolov5s", results / "accuracy"),
        "story-qat": lambda: qat_chart(results / "accuracy" / "real-h200.json"),
        "story-sensitivity": lambda: sensitivity_chart(results / "sensitivity" / "yolov5s-5bits-h100.json"),
    }


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [*(story.name for story in STORIES), *charts(Path())]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=BUNDLE / "benchmarks" / "results", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("imgs"), help="folder of the pictures; default: %(default)s")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write NAME.svg of each picture asked for."""
    options = parse_arguments(arguments)
    drawn = charts(options.results)
    for story in STORIES:
        if story.name in options.only:
            picture = story_picture(story, options.results)
            with atomic_write(options.out / f"{story.name}.svg") as temporary:
                Path(temporary).write_bytes(picture)
    for name in options.only:
        if name in drawn:
            save_figure(drawn[name](), str(options.out / f"{name}.svg"))
    return 0


if __name__ == "__main__":
    run_main(main)
