"""Drawings of engines, and scripts/draw-engine.py from the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from quantization.dot import render
from quantization.inspector.causes import CAUSES
from quantization.inspector.compare import compare_engines
from quantization.inspector.drawing import engine_dot
from quantization.inspector.layers import load_layers
from quantization.inspector.page import engine_page, top_html
from quantization.inspector.report import EngineReport, Item, report_comparison, report_engine
from quantization.inspector.topology import EngineGraph
from support.engine_files import ENGINES, load_graph

SCRIPT = Path(__file__).parents[2] / "scripts" / "draw-engine.py"
SVG = "{http://www.w3.org/2000/svg}"
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz dot is not installed")


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        **options,
    )


def draw(report: EngineReport) -> bytes:
    return render(engine_dot(report), "svg")


def texts(element):
    return [node.text or "" for node in element.iter(SVG + "text")]


def test_edges_are_those_of_the_tensor_names():
    """Compared with a plain search by name, where no tensor is written twice."""
    graph = load_graph("yolov5s-no-rule")
    data = json.loads((ENGINES / "yolov5s-no-rule-layer.json").read_text(encoding="utf-8"), strict=False)
    writers = {}
    for index, layer in enumerate(data["Layers"]):
        for tensor in layer["Outputs"]:
            writers.setdefault(tensor["Name"], []).append(index)
    expected = {
        (source, index)
        for index, layer in enumerate(data["Layers"])
        for tensor in layer["Inputs"]
        for source in writers.get(tensor["Name"], [None])
    }
    expected |= {(source, None) for source in writers["outputs"]}
    assert {(edge.source, edge.target) for edge in graph.edges} == expected
    parts = {edge.tensor.name for edge in graph.edges if edge.part}
    assert parts == {name for name, sources in writers.items() if len(sources) > 1}


def test_reused_scratch_tensors_keep_the_last_whole_write(tmp_path):
    def tensor(name, *shape):
        return {"Name": name, "Dimensions": list(shape)}

    layers = [
        {"Name": "a", "Outputs": [tensor("s", 8)]},
        {"Name": "b", "Inputs": [tensor("s", 8)]},
        {"Name": "c", "Outputs": [tensor("s", 8)]},
        {"Name": "d", "Outputs": [tensor("p", 4)]},
        {"Name": "e", "Outputs": [tensor("p", 4)]},
        {"Name": "f", "Inputs": [tensor("s", 8), tensor("p", 8)]},
    ]
    path = tmp_path / "L.json"
    path.write_text(json.dumps({"Layers": layers, "Bindings": []}), encoding="utf-8")
    edges = EngineGraph(load_layers(path)).edges
    assert [(edge.source, edge.target, edge.part) for edge in edges] == [
        (0, 1, False),
        (2, 5, False),
        (3, 5, True),
        (4, 5, True),
    ]


def test_what_reads_constants_only_is_constant(tmp_path):
    def layer(name, layer_type, inputs, output):
        return {
            "Name": name,
            "LayerType": layer_type,
            "Inputs": [{"Name": each, "Dimensions": [2]} for each in inputs],
            "Outputs": [{"Name": output, "Dimensions": [1]}],
        }

    layers = [
        layer("a", "Constant", [], "c"),
        layer("b", "MyelinReformat", ["c"], "d"),
        layer("c", "NoOp", ["d"], "e"),
        layer("d", "Reformat", ["c", "x"], "f"),
        layer("e", "ElementWise", ["c"], "g"),
    ]
    path = tmp_path / "L.json"
    path.write_text(json.dumps({"Layers": layers, "Bindings": ["x"]}), encoding="utf-8")
    assert EngineGraph(load_layers(path)).constant == {0, 1, 2}


@needs_dot
def test_svg_shows_kind_precision_time_and_type_changes():
    graph = load_graph("yolov5s-no-rule")
    root = ElementTree.fromstring(draw(report_engine(graph)))
    nodes = {node.get("id"): node for node in root.iter(SVG + "g") if node.get("class") == "node"}
    drawn = [layer for layer in graph.layers if layer.index not in graph.constant]
    assert {f"e0_{layer.index}" for layer in drawn} == {name for name in nodes if re.fullmatch(r"e0_\d+", name)}
    first = next(layer for layer in drawn if "/model.0/conv/Conv" in layer.name)
    share = 100 * first.time_ms / sum(layer.time_ms for layer in graph.layers)
    assert texts(nodes[f"e0_{first.index}"])[:2] == ["conv", "model.0: Conv + SiLU"]
    assert re.sub(r"\s+", " ", texts(nodes[f"e0_{first.index}"])[2].replace("\xa0", " ")) == (
        f"Int8 {1000 * first.time_ms:.1f} us, {share:.1f} %"
    )
    red = {name for name, node in nodes.items() if "#e00000" in ElementTree.tostring(node, encoding="unicode")}
    changing = {
        f"e0_{layer.index}"
        for layer in drawn
        if layer.type == "Reformat" and layer.inputs[0].datatype != layer.outputs[0].datatype
    }
    assert red == changing and len(red) == 14
    assert "\xa0Int8 NC/32HW32 1x32x320x320" in texts(root)
    assert any("110 of them" in text for text in texts(root))  # constants are left out, and the heading says so


@needs_dot
def test_findings_are_marked_in_the_drawing():
    graphs = load_graph("first-concat-ptq"), load_graph("first-concat-no-rule")
    report = report_comparison(compare_engines(*graphs))
    root = ElementTree.fromstring(draw(report))
    nodes = {node.get("id"): texts(node) for node in root.iter(SVG + "g") if node.get("class") == "node"}
    (mark,) = set(report.marks.values())
    marked = {name for name, words in nodes.items() if f"finding {mark}" in words}
    assert marked == {f"e{engine}_{index}" for engine, index in report.marks} and len(marked) == 3
    assert any("In first-concat-no-rule, not in first-concat-ptq" in text for text in texts(root))
    plain = ElementTree.fromstring(render(engine_dot(report, notes=False), "svg"))
    assert not any("not in first-concat-ptq" in text for text in texts(plain))


@needs_dot
def test_two_engines_are_drawn_side_by_side_at_one_height():
    def top(root, name):
        node = next(node for node in root.iter(SVG + "g") if node.get("id") == name)
        pairs = [pair for shape in node.iter(SVG + "polygon") for pair in shape.get("points").split()]
        numbers = [float(pair.split(",")[1]) for pair in pairs]
        return (max(numbers) + min(numbers)) / 2

    graphs = load_graph("first-concat-ptq"), load_graph("first-concat-no-rule")
    report = report_comparison(compare_engines(*graphs))
    root = ElementTree.fromstring(draw(replace(report, aligned=[(6, 9)])))
    assert top(root, "e0_6") == pytest.approx(top(root, "e1_9"), abs=1)
    root = ElementTree.fromstring(draw(replace(report, aligned=[])))
    assert abs(top(root, "e0_6") - top(root, "e1_9")) > 20


@needs_dot
def test_cycles_and_odd_names_are_drawn(tmp_path):
    draw(report_engine(load_graph("loop", profile=False)))
    odd = ["", " ", 'a"b', "<b>&amp;", "back\\slash\\", "\\N", "\ud800", "]]>", "{|}", "é漢", "x" * 5000, "</script>"]
    layers = [
        {
            "Name": name,
            "LayerType": name,
            "Origin": name,
            "Metadata": f"[ONNX Layer: /{name}/{name}]",
            "Inputs": [{"Name": name, "Dimensions": []}],
            "Outputs": [{"Name": name + "o"}],
        }
        for name in odd
    ]
    path = tmp_path / "odd-layer.json"
    path.write_text(json.dumps({"Layers": layers, "Bindings": odd}), encoding="utf-8")
    graph = EngineGraph(load_layers(path, 'n"<\x07\\'))
    drawing = draw(replace(report_engine(graph), graphs=[graph, graph]))
    shown = "".join(ElementTree.fromstring(drawing).itertext())
    assert "<b>&amp;" in shown and "back\\slash\\" in shown and 'a"b' in shown
    link = "{http://www.w3.org/1999/xlink}title"
    titles = {node.get(link, "").strip() for node in ElementTree.fromstring(drawing).iter()}
    assert {'a"b', "<b>&amp;", "back\\slash\\", "\\N", "</script>"} <= titles
    html = engine_page(report_engine(graph), drawing)
    assert html.count("</script>") == 1


@needs_dot
def test_page_is_self_contained_and_holds_every_record():
    graph = load_graph("yolov5s-groups")
    html = engine_page(report_engine(graph), draw(report_engine(graph)))
    records = json.loads(re.search(r"const records = (\{.*\});", html).group(1))
    assert len(records) == len(graph.layers)
    assert records["e0_3"]["LayerType"] == graph.layers[3].type
    drawn = set(range(len(graph.layers))) - graph.constant
    assert set(re.findall(r'id="(e0_\d+)"', html)) == {f"e0_{index}" for index in drawn}
    assert not re.search(r'(?:src|href)="(?!#)', html) and "@import" not in html
    assert "$" not in re.sub(r"const records = .*", "", html)
    assert records["e0_3"]["time in ms (profile)"] == round(graph.layers[3].time_ms, 4)
    beginning = re.search(r'id="begin">.*data-show="(e0_\d+)">yolov5s-groups<', html)
    assert beginning is not None and int(beginning.group(1)[3:]) == min(drawn)


def test_the_page_says_whether_anything_can_be_avoided():
    report = report_engine(load_graph("first-concat-ptq"))
    assert report.costliest == []
    assert "Nothing avoidable was found in first-concat-ptq." in engine_page(report, draw(report))
    assert "<b>Findings: 1 finding, 20.0 us, none avoidable</b>" in engine_page(report, draw(report))
    report = report_engine(load_graph("yolov5s-groups"))
    page = engine_page(report, draw(report))
    found = [item.finding for section in report.sections for group in section.groups for item in group.items]
    avoidable = sum(finding.avoidable for finding in found)
    assert report.costliest and avoidable and "Nothing avoidable" not in page
    cost = 1000 * sum(finding.cost_ms for finding in found)
    assert f"<b>Findings: {len(found)} findings, {cost:.1f} us, {avoidable} avoidable</b>" in page


def _without_advice(item: Item) -> Item:
    return replace(item, finding=replace(item.finding, advice=""))


def test_a_change_that_several_of_the_costliest_findings_ask_for_is_said_once():
    graph = load_graph("yolov5s-groups")
    report = report_engine(graph)
    assert sum(item.finding.cause == "sum" for item in report.costliest) == 3
    own = {item.finding.advice for item in report.costliest if item.finding.cause == "sum"}
    assert len(own) == 3 and all(text in top_html(report) for text in own)  # each of them its own advice
    change = f"Change: {CAUSES['sum'].change}."
    assert change not in top_html(report)
    groups = [
        replace(group, items=[_without_advice(item) for item in group.items]) for group in report.sections[0].groups
    ]
    report = replace(report, sections=[replace(report.sections[0], groups=groups)])
    assert top_html(report).count(change) == 1


def test_one_engine_is_summed_up_in_a_line():
    graph = load_graph("yolov5s-groups")
    untimed = EngineGraph(load_layers(str(ENGINES / "first-concat-ptq-layer.json")))
    assert report_engine(untimed).headline.endswith(" has 7 layers; give its profile to see times.")
    convs = sum(layer.time_ms for layer in graph.layers if layer.kind == "conv")
    total = sum(layer.time_ms for layer in graph.layers)
    assert report_engine(graph).headline.startswith(
        f"yolov5s-groups takes {total:.3f} ms in {len(graph.layers)} layers: conv {100 * convs / total:.1f} %, "
    )


def test_an_absent_graphviz_package_is_one_line_and_the_report_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "graphviz.py").write_text("raise ImportError('no such package')\n")
    layers = ENGINES / "first-concat-ptq-layer.json"
    done = run("--layer", layers, "--output", tmp_path / "x.svg", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and "Findings:" in done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "pip install graphviz" in done.stderr and not (tmp_path / "x.svg").exists()


@needs_dot
def test_profile_index_of_one_engine_and_of_two(tmp_path: Path) -> None:
    layers, times = ENGINES / "two-profiles-layer.json", ENGINES / "two-profiles-profile.json"
    plain = ENGINES / "first-concat-ptq-layer.json"
    output = tmp_path / "x.svg"
    one = run("--layer", layers, "--profile", times, "--profile-index", 1, "--output", output)
    assert (one.returncode, one.stderr) == (0, "") and "two-profiles [profile 1]" in one.stdout
    both = run("--layer", layers, "--compare", layers, "--profile-index", 0, 1, "--output", output)
    assert (both.returncode, both.stderr) == (0, "")
    assert "In two-profiles [profile 1], not in two-profiles:" in both.stdout
    first = run("--layer", layers, "--compare", plain, "--output", output)
    assert first.returncode == 0 and first.stderr.startswith("note: ") and first.stderr.count("\n") == 1
    wrong = run("--layer", layers, "--compare", plain, "--profile-index", 1, "--output", output)
    assert wrong.returncode == 2 and f"{plain} has 1 optimization profile" in wrong.stderr


@needs_dot
def test_script_writes_the_default_output_from_any_folder(tmp_path):
    for name in ("first-concat-ptq-layer.json", "first-concat-ptq-profile.json"):
        shutil.copy(str(ENGINES / name), str(tmp_path / name))
    done = run("--layer=first-concat-ptq-layer.json", "--profile=first-concat-ptq-profile.json", cwd=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "80.0 us" in done.stdout and "Findings:" in done.stdout
    ElementTree.parse(str(tmp_path / "first-concat-ptq-layer.json.svg"))
    assert len(list(tmp_path.iterdir())) == 3


@needs_dot
@pytest.mark.parametrize("file_format, magic", [("svg", b"<?xml"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")])
def test_script_compares(tmp_path, file_format, magic):
    output = tmp_path / f"out.{file_format}"
    done = run(
        "--layer",
        ENGINES / "first-concat-ptq-layer.json",
        "--profile",
        ENGINES / "first-concat-ptq-profile.json",
        "--compare",
        ENGINES / "first-concat-no-rule-layer.json",
        "--compare-profile",
        ENGINES / "first-concat-no-rule-profile.json",
        "--output",
        output,
        "--names",
        "ptq",
        "no-rule",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert output.read_bytes().startswith(magic)
    assert "In no-rule, not in ptq:" in done.stdout and "one quantizer" in done.stdout
    if file_format == "svg":  # the finding is in the picture itself
        drawn = " ".join(texts(ElementTree.parse(str(output)).getroot()))
        assert "In no-rule, not in ptq" in drawn and "through Concat /model.10/Concat" in drawn
        assert drawn.count("finding 1") == 3  # an activation and two Reformats


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--layer", "absent.json"], "absent.json does not exist"),
        (["--layer", ENGINES / "names-only-layer.json"], "--profilingVerbosity=detailed"),
        (["--layer", ENGINES / "loop-layer.json", "--output", "x.pdf"], "give --format"),
        (["--layer", ENGINES / "loop-layer.json", "--names", "a", "b"], "--names takes one name per engine"),
        (["--layer", ENGINES / "loop-layer.json", "--compare-profile", "p.json"], "needs --compare"),
        (["--layer", ENGINES / "loop-layer.json", "--profile-index", "1"], "has 1 optimization profile"),
        (["--layer", ENGINES / "loop-layer.json", "--profile-index", "0", "1"], "one number per engine, 2 given"),
    ],
)
def test_script_errors_are_one_line(tmp_path, arguments, message):
    done = run(*arguments, cwd=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert list(tmp_path.iterdir()) == []
