"""Findings on real and on small written engines: what they blame, what they advise, and how they are listed."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from quantization.inspector.causes import CAUSES
from quantization.inspector.compare import compare_engines
from quantization.inspector.findings import find_problems
from quantization.inspector.layers import load_layers
from quantization.inspector.records import EngineInfo, Layer, Tensor
from quantization.inspector.report import report_comparison, report_engine
from quantization.inspector.text import engine_text
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph
from support.engine_files import comparison_html, comparison_text, load_graph, without_times

REAL = ("yolov5s-fp16", "yolov5s-no-rule", "yolov5s-rule", "yolov5s-groups", "first-concat-ptq", "first-concat-no-rule")


def by_key(findings):
    return {finding.key: finding for finding in findings}


def tensor(text):
    """``"x Int8 NC/32HW32 1x3x8x8"`` as a Tensor."""
    name, datatype, layout, shape = text.split()
    return Tensor(name, tuple(map(int, shape.split("x"))), datatype, layout)


def write(name, *layers):
    """An engine of (what, ONNX nodes or origin, input tensor, output tensor, us)."""
    found = []
    for index, (what, detail, before, after, us) in enumerate(layers):
        metadata = "" if what == "Reformat" else "".join(f"[ONNX Layer: {node}]" for node in detail.split())
        found.append(
            Layer(
                index,
                f"{what} {index}",
                what,
                [tensor(before)],
                [tensor(after)],
                origin=detail if what == "Reformat" else "",
                metadata=metadata,
                time_ms=None if us is None else us / 1000,
            )
        )
    return EngineGraph(EngineInfo(name, found, ["images", "outputs"]))


STEM, NEXT = "/model.0/conv/Conv /model.0/act/Sigmoid /model.0/act/Mul", "/model.1/conv/Conv"


def int8_stem(name="int8", conv=400, pad=200, size=4):
    """The image quantized, padded, and an INT8 stem; then an INT8 convolution."""
    return write(
        name,
        ("Reformat", "QDQ", "images FP32 linear 1x3x8x8", "q Int8 NC/4HW4 1x3x8x8", 50),
        ("Reformat", "REFORMAT", "q Int8 NC/4HW4 1x3x8x8", "p Int8 NC/32HW32 1x3x8x8", pad),
        ("CaskConvolution", STEM, "p Int8 NC/32HW32 1x3x8x8", f"s Int8 NC/32HW32 1x32x{size}x{size}", conv),
        ("CaskConvolution", NEXT, f"s Int8 NC/32HW32 1x32x{size}x{size}", "outputs FP32 linear 1x8x4x4", 10),
    )


def float_stem(name="float", conv=200, quantized=True):
    """An FP16 stem, its output quantized for an INT8 convolution or read by one in FP16."""
    first = (
        ("Reformat", "REFORMAT", "images FP32 linear 1x3x8x8", "h FP16 NHWC4 1x3x8x8", 60),
        ("CaskConvolution", STEM, "h FP16 NHWC4 1x3x8x8", "s FP16 NHWC8 1x32x4x4", conv),
    )
    if quantized:
        return write(
            name,
            *first,
            ("Reformat", "QDQ", "s FP16 NHWC8 1x32x4x4", "t Int8 NC/32HW32 1x32x4x4", 80),
            ("CaskConvolution", NEXT, "t Int8 NC/32HW32 1x32x4x4", "outputs FP32 linear 1x8x4x4", 10),
        )
    return write(name, *first, ("CaskConvolution", NEXT, "s FP16 NHWC8 1x32x4x4", "outputs FP32 linear 1x8x4x4", 10))


def test_artefact_of_merged_biases_is_named():
    first = find_problems(load_graph("yolov5s-no-rule"))[0]
    assert first.cause == "identity" and first.text.startswith("52 biases are copied")
    assert "Identity" in CAUSES["identity"].change
    assert "identity" not in {finding.cause for finding in find_problems(load_graph("yolov5s-groups"))}


def test_int8_stem_is_named_after_the_image_and_avoidable_if_strided():
    real = by_key(find_problems(load_graph("yolov5s-no-rule")))["stem", "model.0"]
    assert real.avoidable and real.text.startswith("images: its 3 channels are padded to 32 for the INT8 kernel")
    assert "quant-tools: --stem float" in real.advice
    strided = by_key(find_problems(int8_stem(size=4)))["stem", "model.0"]
    assert strided.avoidable and strided.layers == (0, 1) and strided.cost_ms == pytest.approx(0.250)
    whole = by_key(find_problems(int8_stem(size=8)))["stem", "model.0"]
    assert not whole.avoidable and "--stem" not in whole.advice


@pytest.mark.parametrize("activation, advice", [("Sigmoid /model.0/act/Mul", "tanh"), ("LeakyRelu", "--stem int8")])
def test_float_stem_in_fp32_is_blamed_where_fp16_is_allowed(activation, advice):
    """As TensorRT 8.6 builds yolov5s where x * sigmoid(x) lies between a float stem and a Q."""
    layers = [
        (
            "CaskConvolution",
            f"/model.0/conv/Conv /model.0/act/{activation}",
            "images FP32 linear 1x3x8x8",
            "s FP32 linear 1x32x4x4",
            833,
        ),
        ("Reformat", "QDQ", "s FP32 linear 1x32x4x4", "t Int8 NC/32HW32 1x32x4x4", 107),
        ("CaskConvolution", NEXT, "t Int8 NC/32HW32 1x32x4x4", "u FP16 NHWC8 1x8x4x4", 10),
        ("CaskConvolution", "/model.2/conv/Conv", "u FP16 NHWC8 1x8x4x4", "outputs FP32 linear 1x8x4x4", 10),
    ]
    (finding,) = (finding for finding in find_problems(write("fp32", *layers)) if finding.cause == "fp32")
    assert finding.avoidable and finding.layers == (0, 1) and finding.cost_ms == pytest.approx(0.94)
    assert advice in finding.advice and "model.0: computes in FP32" in finding.text
    layers[2:] = [("CaskConvolution", NEXT, "t Int8 NC/32HW32 1x32x4x4", "outputs FP32 linear 1x8x4x4", 10)]
    assert [finding.cause for finding in find_problems(write("no FP16 at all", *layers))] == ["float producer"]


def test_float_head_is_to_get_an_int8_input():
    graph = load_graph("yolov5s-no-rule")
    found = by_key(find_problems(graph))["float reader", "model.17.cv3"]
    assert found.avoidable and "read as float by model.24.m.0" in found.text
    assert "--head input" in CAUSES["float reader"].change
    layers = [graph.layers[index] for index in found.layers]
    assert any(layer.type == "PointWiseV2" for layer in layers) and any(layer.origin == "QDQ" for layer in layers)


def detect_engine(shared: bool, larger: bool) -> EngineGraph:
    """An INT8 layer, split from its SiLU, before a float detect convolution.

    Args:
        shared: an INT8 convolution reads the same tensor.
        larger: another detect convolution reads a larger tensor.
    """
    int8 = ("Reformat", "QDQ", "b FP16 NHWC8 1x32x4x4", "q Int8 NC/32HW32 1x32x4x4", 6)
    reader = ("CaskConvolution", "/model.2/conv/Conv", "q Int8 NC/32HW32 1x32x4x4", "o Int8 NC/32HW32 1x32x4x4", 7)
    size = 8 if larger else 2
    return write(
        "detect",
        ("CaskConvolution", NEXT, "images Int8 NC/32HW32 1x32x4x4", "a FP16 NHWC8 1x32x4x4", 10),
        ("PointWiseV2", "/model.1/act/Sigmoid /model.1/act/Mul", "a FP16 NHWC8 1x32x4x4", "b FP16 NHWC8 1x32x4x4", 5),
        *((int8, reader) if shared else ()),
        ("CaskConvolution", "/model.3/m.0/Conv", "b FP16 NHWC8 1x32x4x4", "outputs FP32 linear 1x8x4x4", 10),
        ("CaskConvolution", "/model.3/m.1/Conv", f"c FP16 NHWC8 1x32x{size}x{size}", "d FP32 linear 1x8x2x2", 10),
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("larger", [False, True])
def test_what_the_default_placement_keeps_for_detect_convolutions_is_expected(shared: bool, larger: bool) -> None:
    """Only of tensors that INT8 layers read too, the largest is to be quantized."""
    found = by_key(find_problems(detect_engine(shared, larger)))
    advised = shared and not larger
    finding = found["float reader" if advised else "detect", "model.1"]
    assert finding.avoidable == advised and set(finding.layers) == ({1, 2} if shared else {1})
    assert advised or ("--head shared" if shared else "--head input") in finding.advice


@pytest.mark.parametrize("net, count", [("yolov5s", 2), ("yolov7", 3), ("yolov7-tiny", 0)])
def test_engines_of_the_default_placement_get_no_advice(net: str, count: int) -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "engines" / net
    graph = EngineGraph(add_profile(load_layers(folder / "rule-layer.json"), folder / "rule-profile.json"))
    found = find_problems(graph)
    assert not [finding for finding in found if finding.avoidable]
    assert sum(finding.cause == "detect" for finding in found) == count


def test_detect_convolutions_that_another_engine_has_in_int8_are_expected() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "engines" / "yolov7-tiny"
    ptq, rule = (
        EngineGraph(add_profile(load_layers(folder / f"{name}-layer.json"), folder / f"{name}-profile.json"))
        for name in ("ptq", "rule")
    )
    found = [finding for finding in compare_engines(ptq, rule).only_second if finding.cause == "precision"]
    assert {(finding.key[1], finding.avoidable) for finding in found} == {
        ("model.0.conv", True),
        ("model.77.m.2", False),
    }


def test_reformat_to_float_for_float_weights_is_expected():
    graph = write(
        "head",
        ("CaskConvolution", NEXT, "images Int8 NC/32HW32 1x32x4x4", "a Int8 NC/32HW32 1x32x4x4", 10),
        ("Reformat", "QDQ", "a Int8 NC/32HW32 1x32x4x4", "b FP16 NHWC8 1x32x4x4", 5),
        ("CaskConvolution", "/model.24/m.0/Conv", "b FP16 NHWC8 1x32x4x4", "outputs FP32 linear 1x8x4x4", 10),
    )
    found = find_problems(graph)
    assert [(finding.cause, finding.avoidable, finding.layers) for finding in found] == [("float weights", False, (1,))]
    assert "model.24.m.0, which computes in float" in found[0].text


@pytest.mark.parametrize("name", ["yolov5s-fp16", "yolov5s-no-rule", "yolov5s-groups"])
def test_copies_into_a_concat_are_expected_as_they_are_in_fp16(name):
    found = by_key(find_problems(load_graph(name)))
    assert "1 from a Resize" in found["concat", "/model.12/Concat"].text
    assert not any(finding.avoidable for finding in found.values() if finding.cause == "concat")


@pytest.mark.parametrize(
    "slow, fast, advice",
    [
        (
            int8_stem(),
            float_stem(),
            "leave model.0.conv in float (quant-tools: --stem float)",
        ),  # 650 us and 340 us
        (float_stem(conv=700), int8_stem(), "quantize model.0.conv, if accuracy allows"),  # 840 us and 650 us
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_float_and_int8_are_compared_with_their_reformats(slow, fast, advice, turned):
    comparison = compare_engines(slow, fast) if turned else compare_engines(fast, slow)
    mine, other = (
        (comparison.only_first, comparison.only_second) if turned else (comparison.only_second, comparison.only_first)
    )
    # it stands for the findings on the single Reformats, in both engines
    assert [finding.key for finding in mine] == [("precision", "model.0.conv")] and other == []
    ways = [sum(layer.time_ms for layer in graph.layers[:3]) for graph in (slow, fast)]
    assert mine[0].cost_ms == pytest.approx(ways[0] - ways[1]) and mine[0].advice == advice
    assert mine[0].layers == (0, 1, 2) and mine[0].avoidable
    assert f"{1000 * ways[0]:.1f} us in" in mine[0].text and f"{1000 * ways[1]:.1f} us in" in mine[0].text


def test_precision_gets_no_advice_without_a_measurement():
    def precisions(first, second):
        comparison = compare_engines(first, second)
        return [finding for finding in comparison.only_first + comparison.only_second if finding.cause == "precision"]

    assert precisions(int8_stem(), float_stem(conv=500)) == []  # 650 us and 640 us: as fast
    assert precisions(int8_stem(), float_stem(quantized=False)) == []  # among INT8 neighbours it would need a Reformat
    assert precisions(int8_stem(), without_times(float_stem())) == []


def test_float_engine_is_told_which_convolutions_int8_would_help():
    comparison = compare_engines(load_graph("yolov5s-groups"), load_graph("yolov5s-fp16"))
    found = [finding for finding in comparison.only_second if finding.cause == "precision"]
    assert len(found) > 20 and all(finding.advice.startswith("quantize model.") for finding in found)
    assert not any(finding.cause == "precision" for finding in comparison.only_first)


@pytest.mark.parametrize("names", list(itertools.permutations(REAL[:4], 2)))
def test_terminal_lists_ten_and_the_page_all(names):
    comparison = compare_engines(*map(load_graph, names))
    text, page = comparison_text(comparison), comparison_html(comparison)
    parts = (comparison.only_second, comparison.only_first, comparison.both)
    mine = sorted((1000 * f.cost_ms for f in (*comparison.only_second, *comparison.both) if f.avoidable), reverse=True)
    above = page.split("<details>")[0]
    costs = re.findall(r"<span class=cost>([\d.]+) us</span>", above)
    assert costs == [f"{cost:.1f}" for cost in mine[:5]]  # the costliest of the second engine, before all of both
    assert page.count("<li value=") == sum(map(len, parts)) + len(costs)
    chapters = re.split(r"\n\n", text)
    for part in parts:
        avoidable = [finding for finding in part if finding.avoidable]
        if avoidable:
            chapter = next(
                each for each in chapters if re.search(rf"(?m)^ *\d+\. {1000 * avoidable[0].cost_ms:.1f} us", each)
            )
            listed = re.findall(r"(?m)^ *(\d+)\. ([\d.]+) us", chapter)
            rest = re.findall(r"and (\d+) more, ([\d.]+) us", chapter)
            assert len(listed) == min(10, len(avoidable))
            assert len(listed) + sum(int(count) for count, _ in rest) == len(avoidable)
            total = sum(float(us) for _, us in listed + rest)
            assert total == pytest.approx(1000 * sum(finding.cost_ms for finding in avoidable), abs=1)
    for cause in CAUSES.values():  # said once
        assert " ".join(text.split()).count(cause.why + ".") <= 1


def test_numbers_in_the_drawing_are_those_of_the_report():
    comparison = compare_engines(load_graph("yolov5s-fp16"), load_graph("yolov5s-no-rule"))
    report = report_comparison(comparison)
    numbers = [item.number for section in report.sections for group in section.groups for item in group.items]
    assert numbers == list(range(1, len(numbers) + 1))
    item = report.sections[0].groups[0].items[0]
    marked = {place for place, mark in report.marks.items() if mark == item.number}
    assert marked == {(1, index) for index in item.finding.layers}
    expected = [index for finding in comparison.only_second if not finding.avoidable for index in finding.layers]
    assert expected and not any((1, index) in report.marks for index in expected)


@pytest.mark.parametrize("name", REAL)
def test_findings_are_complete_sentences(name):
    graph = load_graph(name)
    findings = find_problems(graph)
    for other in REAL:
        if other.split("-")[0] == name.split("-")[0]:
            comparison = compare_engines(load_graph(other), graph)
            findings += comparison.only_second
            text = comparison_text(comparison)
            assert not re.search(r"\b1 (findings|layers|Reformats|branches|biases|channels|copies|times)\b", text)
    for finding in findings:
        assert finding.cause in CAUSES and "nothing" not in finding.text and ". " not in finding.text
        assert finding.advice or CAUSES[finding.cause].change or not finding.avoidable, finding
    assert ":" in engine_text(report_engine(graph)).splitlines()[0]


def test_no_layer_is_in_two_findings():
    for graph in (int8_stem(), float_stem(), float_stem(quantized=False)):
        claimed = Counter(index for finding in find_problems(graph) for index in finding.layers)
        assert set(claimed.values()) == {1}
