"""Comparison of engines: alignment, what fused differently, and findings in words."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from quantization.inspector.causes import CAUSES
from quantization.inspector.compare import compare_engines
from quantization.inspector.findings import find_problems
from quantization.inspector.layers import load_layers
from quantization.inspector.summary import summarise
from quantization.inspector.topology import EngineGraph
from support.engine_files import ENGINES, comparison_html, comparison_text, load_graph


@pytest.fixture(scope="module")
def published():
    return compare_engines(load_graph("first-concat-ptq"), load_graph("first-concat-no-rule"))


def test_published_finding_comes_first(published):
    """The document's pictures: model.5 is not fused and two Reformats follow it, because of the first Concat."""
    first = published.only_second[0]
    assert first.key == ("scales", "model.5") and first.avoidable
    for words in (
        "quantized twice",
        "for model.6.conv",
        "for model.11.conv through Concat /model.10/Concat",
        "convolution and activation are not fused",
    ):
        assert words in first.text
    assert "one quantizer" in CAUSES[first.cause].change
    assert first.cost_ms == pytest.approx(0.006 + 0.011 + 0.009)
    assert len(published.only_second) == 1 and published.only_first == []
    assert [(region.name, region.describe(0), region.describe(1)) for region in published.fusions] == [
        ("model.5", "Conv + SiLU", "Conv | SiLU | 2 Reformats")
    ]
    assert published.fusions[0].extra_ms == pytest.approx(0.028)


def test_report_says_it_first_in_the_terminal_and_on_the_page(published):
    text, page = comparison_text(published), comparison_html(published)
    lines = text.splitlines()
    assert lines[0].startswith(
        "first-concat-no-rule takes 0.108 ms in all layers, 35.0 % more than first-concat-ptq (0.080 ms). "
    )
    assert "+28.0 us" in lines[0]
    assert lines[2] == "In first-concat-no-rule, not in first-concat-ptq:"
    assert lines[3].startswith("  scales, 1 finding, 26.0 us: ")
    flat = " ".join(text.split())
    for words in (
        "+28.0 us",
        "26.0 us",
        "model.5: its FP16 output",
        "through Concat /model.10/Concat",
        "Conv | SiLU | 2 Reformats",
        "FP16 to Int8",
        "quantize without --no-rules",
    ):
        assert words in flat and words in page
    assert page.count("<svg") == 1  # the chart
    assert flat.count("quantize without --no-rules") == page.count("quantize without --no-rules") == 1


def test_one_sided_concat_names_come_from_the_other_engine():
    """All branches written by Q kernels: nothing in that engine names the Concat."""
    first, second = load_graph("yolov5s-groups"), load_graph("yolov5s-no-rule")
    alone = {finding.key: finding for finding in find_problems(second)}["scales", "model.10"]
    assert "for model.23.cv1.conv and model.23.cv2.conv through" in alone.text
    told = {finding.key: finding for finding in compare_engines(first, second).only_second}["scales", "model.10"]
    assert "/model.12/Concat" in told.text and "/model.22/Concat" in told.text


def test_summary_counts_what_the_file_holds():
    graph = load_graph("yolov5s-no-rule")
    summary = summarise(graph)
    data = json.loads((ENGINES / "yolov5s-no-rule-layer.json").read_text(encoding="utf-8"), strict=False)
    profile = json.loads((ENGINES / "yolov5s-no-rule-profile.json").read_text(encoding="utf-8"))
    times = {entry["name"]: entry["medianMs"] for entry in profile[1:]}
    changing, origins = Counter(), Counter()
    for layer in data["Layers"]:
        if layer["LayerType"] == "Reformat" and layer["Origin"] != "CAST":
            before, after = (
                re.search(r"Int8|FP\d\d", layer[side][0]["Format/Datatype"]).group(0) for side in ("Inputs", "Outputs")
            )
            origins[layer["Origin"]] += 1
            changing[f"{before} to {after}"] += before != after
    assert {name: tally.count for name, tally in summary.origins.items()} == dict(origins)
    assert {name: tally.count for name, tally in summary.changes.items()} == {k: n for k, n in changing.items() if n}
    convolutions = [layer["Name"] for layer in data["Layers"] if "Convolution" in layer["LayerType"]]
    assert summary.kinds["conv"].ms == pytest.approx(sum(times[name] for name in convolutions))
    # 58 constants, and 34 MyelinReformat and 18 CAST Reformats of nothing but constants
    assert summary.kinds["constant"].count == 58 + 34 + 18
    assert sum(tally.ms for tally in summary.kinds.values()) == pytest.approx(sum(times.values()))


def test_real_engines_show_the_laterals_with_two_scales():
    comparison = compare_engines(load_graph("yolov5s-groups"), load_graph("yolov5s-no-rule"))
    found = {finding.key: finding for finding in comparison.only_second}
    assert ("scales", "model.14") in found
    lateral = found["scales", "model.10"]
    assert "model.13.cv1.conv" in lateral.text and "model.23.cv1.conv" in lateral.text
    assert lateral.advice == "quantize the input of model.11 (Resize) with it too"
    # the prototype's shortcuts: one operand quantized
    sums = [finding for finding in comparison.only_first if finding.cause == "sum"]
    assert len(sums) == 7 and all("both operands" in finding.advice for finding in sums)
    # their sums are split for that reason, which is not told twice
    assert not any(finding.cause == "split" for finding in comparison.only_first)


@pytest.mark.parametrize("name", ["yolov5s-fp16", "yolov5s-no-rule", "yolov5s-groups"])
def test_every_reformat_is_in_exactly_one_finding(name):
    graph = load_graph(name)
    claimed = Counter(index for finding in find_problems(graph) for index in finding.layers)
    assert all(claimed[layer.index] == 1 for layer in graph.layers if "reformat" in layer.type.lower())
    assert max(claimed.values()) == 1


def test_alignment_is_by_upstream_node():
    first, second = load_graph("yolov5s-groups"), load_graph("yolov5s-no-rule")
    regions = compare_engines(first, second).regions
    for engine, graph in enumerate((first, second)):
        places = [layer.index for region in regions for layer in region.layers[engine] + region.reformats[engine]]
        assert len(places) == len(set(places))
        convs = {layer.index for layer in graph.layers if "Convolution" in layer.type}
        assert convs <= {layer.index for region in regions if region.matched for layer in region.layers[engine]}
    for region in regions:
        if region.matched:
            nodes = [{node for layer in layers for node in layer.nodes} for layers in region.layers]
            assert nodes[0] & nodes[1]
    # Conv | SiLU + Add against Conv + SiLU | Add: as many layers, cut elsewhere; addop is this bundle's scope
    add = next(region for region in regions if region.name == "model.2.m.0")
    assert (add.describe(0), add.describe(1)) == ("Conv | SiLU + Add", "Conv + SiLU | Add") and add.fused_differently


def test_an_engine_equals_itself():
    comparison = compare_engines(load_graph("yolov5s-rule"), load_graph("yolov5s-rule"))
    assert comparison.only_first == comparison.only_second == comparison.fusions == []
    assert all(region.extra_ms == 0 for region in comparison.regions)


def test_the_faster_engine_takes_less_and_an_equal_one_as_much():
    slow, fast = load_graph("first-concat-no-rule"), load_graph("first-concat-ptq")
    assert "25.9 % less than first-concat-no-rule (0.108 ms)" in comparison_text(compare_engines(slow, fast))
    assert "takes 0.108 ms in all layers, as much as first-concat-no-rule (0.108 ms)" in comparison_text(
        compare_engines(slow, slow)
    )


def test_without_profiles_layers_are_counted():
    comparison = compare_engines(
        load_graph("first-concat-ptq", profile=False), load_graph("first-concat-no-rule", profile=False)
    )
    text = comparison_text(comparison)
    assert "  1. 3 layers  model.5" in text and " us" not in text
    assert comparison.only_second[0].key == ("scales", "model.5")


def test_rescaling_reformats_name_both_sides(tmp_path):
    """A Concat whose branch already is INT8 in another scale: one Reformat from INT8 to INT8."""
    data = json.loads((ENGINES / "first-concat-ptq-layer.json").read_text(encoding="utf-8"))
    layers = data["Layers"]
    # model.9 reads its part of the Concat from a tensor of its own
    own = dict(layers[5]["Outputs"][0], Name="own")
    layers.insert(
        6,
        {
            "Name": "r",
            "LayerType": "Reformat",
            "Origin": "QDQ",
            "Inputs": [own],
            "Outputs": layers[5]["Outputs"],
            "Metadata": "[ONNX Layer: /model.10/Concat]",
        },
    )
    layers[5] = dict(layers[5], Outputs=[own])
    path = tmp_path / "L.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    finding = find_problems(EngineGraph(load_layers(path)))[0]
    assert finding.key == ("rescale", "model.9") and finding.layers == (6,)
    assert "model.11.conv" in finding.text and "/model.10/Concat" in finding.text
