"""benchmarks/stories.py over the files that real engines left: what it draws, and the figures in it."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import stories
from story_charts import speed_chart
from story_drawing import excerpt
from story_qat import qat_chart

from quantization.errors import UserError
from quantization.inspector.layers import load_layers
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph
from support.house import ROOT

RESULTS = ROOT / "benchmarks" / "results"
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz dot is not installed")


def small_results(folder: Path, net: str, engines: tuple[str, ...]) -> Path:
    """Results with some engines of one network."""
    (folder / "engines" / net).mkdir(parents=True)
    names = ["bench.json", "models.json", *(f"{each}-{kind}.json" for each in engines for kind in ("layer", "profile"))]
    for name in names:
        shutil.copy(RESULTS / "engines" / net / name, folder / "engines" / net)
    return folder


def graph(net: str, name: str) -> EngineGraph:
    folder = RESULTS / "engines" / net
    return EngineGraph(add_profile(load_layers(folder / f"{name}-layer.json"), folder / f"{name}-profile.json"))


@needs_dot
def test_a_story_is_a_picture_with_the_profile_s_times(tmp_path: Path) -> None:
    results = small_results(tmp_path / "results", "yolov7", ("no-rule", "rule"))
    out = tmp_path / "imgs"
    assert stories.main(["--results", str(results), "--out", str(out), "--only", "story-maxpool"]) == 0
    assert [path.name for path in out.iterdir()] == ["story-maxpool.svg"]

    root = ElementTree.fromstring((out / "story-maxpool.svg").read_bytes())
    assert float(root.attrib["width"][: -len("pt")]) * 96 / 72 <= 900
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("NVIDIA H100" in text and "8.6.0" in text and "batch 16" in text for text in texts)
    # of the profile itself: both Q nodes of the tensor that MaxPool and convolution read, one of them over MaxPool
    profile = json.loads((results / "engines" / "yolov7" / "no-rule-profile.json").read_text(encoding="utf-8"))
    times = {entry["name"]: 1000 * entry["medianMs"] for entry in profile if "name" in entry}
    quantizers = [time for name, time in times.items() if re.search(r"/model\.1[34]/\S*_input_quantizer/Q", name)]
    assert len(quantizers) == 2
    assert all(f"{time:.0f} us" in texts for time in quantizers)


def test_an_excerpt_has_the_reformats_that_its_layers_cause_and_no_others() -> None:
    found = {name: excerpt(graph("yolov7", name), ["model.7", "model.8", "model.9"]) for name in stories.MAIN}
    titles = {name: [layer.title for layer in part.layers.values()] for name, part in found.items()}
    fused = ["model.7: Conv + SiLU", "model.8: Conv + SiLU", "model.9: Conv + SiLU"]
    assert titles["rule"] == fused
    assert titles["ptq"] == [*fused, "into /model.10/Concat"]
    quantizers = ["Q of model.8.conv", *fused[1:], "Q of model.11.conv"]
    assert titles["no-rule"] == ["model.7: Conv", "model.7: SiLU", *quantizers]
    ends = [(link.source is None, link.target is None) for link in found["no-rule"].links]
    assert ends.count((True, False)) == 1  # model.6
    assert ends.count((False, True)) == 2  # model.9 and the Q go into the Concat


def test_an_excerpt_starts_with_what_converts_the_image() -> None:
    kinds = [layer.kind for layer in excerpt(graph("yolov5s", "no-rule"), ["model.0"]).layers.values()]
    assert kinds == ["reformat", "reformat", "conv"]


def test_an_engine_without_the_module_is_refused() -> None:
    with pytest.raises(UserError, match=r"no layer of model\.99"):
        excerpt(graph("yolov5s", "ptq"), ["model.1", "model.99"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    results = small_results(tmp_path, "yolov7", ("rule",))
    with pytest.raises(UserError, match=r"no-rule-layer\.json"):
        stories.main(["--results", str(results), "--out", str(tmp_path / "imgs"), "--only", "story-maxpool"])


def test_the_speed_chart_shows_the_figures_of_the_placement_page() -> None:
    axes = speed_chart(RESULTS / "engines" / "yolov5s", RESULTS / "accuracy").axes[0]
    dots = [bar.lines[0] for bar in axes.containers]
    places = {(round(float(dot.get_xdata()[0])), round(float(dot.get_ydata()[0]), 2)) for dot in dots}
    assert places == {(6344, 0.03), (7445, 0.19), (7659, 0.31), (7659, 0.26), (7768, 0.48), (7768, 0.37)}


def test_the_same_chart_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "sensitivity").mkdir()
    shutil.copy(RESULTS / "sensitivity" / "yolov5s-5bits-h100.json", tmp_path / "sensitivity")
    written = []
    for name in ("first", "second"):
        stories.main(["--results", str(tmp_path), "--out", str(tmp_path / name), "--only", "story-sensitivity"])
        written.append((tmp_path / name / "story-sensitivity.svg").read_bytes())
    assert written[0] == written[1]
    assert b"<dc:date>" not in written[0]


def test_the_qat_chart_has_each_seed_and_their_mean() -> None:
    result = RESULTS / "accuracy" / "real-h200.json"
    data = json.loads(result.read_text(encoding="utf-8"))["sets"]["thermal"]
    seeds = [
        [
            100 * (epoch["merged"] - data["float"]["torch"]["merged"])
            for epoch in data["ways"]["qat-default"][seed]["epochs"]
        ]
        for seed in "012"
    ]
    (panel,) = (axes for axes in qat_chart(result).axes if axes.get_title().startswith("thermal"))
    drawn = [list(line.get_ydata()) for line in panel.get_lines()]
    assert drawn[:3] == seeds
    assert drawn[3] == pytest.approx([sum(points) / 3 for points in zip(*seeds)])
