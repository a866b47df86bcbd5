"""Layer information and profiles as records: all versions, and files that are damaged."""

from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from quantization.errors import UserError
from quantization.inspector.compare import compare_engines
from quantization.inspector.drawing import engine_dot
from quantization.inspector.findings import find_problems
from quantization.inspector.layers import datatype_of, layout_of, load_layers
from quantization.inspector.report import report_comparison
from quantization.inspector.text import engine_text
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph
from support.engine_files import ENGINES, load_engine

REAL = ("yolov5s-fp16", "yolov5s-no-rule", "yolov5s-rule", "yolov5s-groups")


@pytest.mark.parametrize("name", REAL)
def test_real_engines_match_their_files(name):
    engine = load_engine(name)
    text = (ENGINES / f"{name}-layer.json").read_text(encoding="utf-8")
    profile = json.loads((ENGINES / f"{name}-profile.json").read_text(encoding="utf-8"))
    assert len(engine.layers) == len(re.findall(r'"LayerType"', text))
    assert engine.bindings == ["images", "outputs"] and not engine.notes
    assert engine.total_ms == pytest.approx(sum(entry.get("medianMs", 0) for entry in profile))
    # counted in the raw text, without JSON
    origins = Counter(layer.origin for layer in engine.layers if layer.origin)
    assert origins == Counter(re.findall(r'"Origin": "(\w+)"', text))
    formats = re.findall(r'"Format/Datatype": "([^"]*)"', text)
    tensors = [tensor for layer in engine.layers for tensor in layer.inputs + layer.outputs]
    assert sum(tensor.datatype == "Int8" for tensor in tensors) == sum("Int8" in each for each in formats)
    assert sum(tensor.layout == "NC/32HW32" for tensor in tensors) == sum("Thirty-two" in each for each in formats)
    assert all(tensor.datatype and tensor.layout for tensor in tensors)


@pytest.mark.parametrize(
    "text, datatype, layout",
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "Int8", "NC/32HW32"),
        ("Thirty-two wide channel vectorized row major FP16 format with 3 spatial dimensions", "FP16", "NC/32DHW32"),
        ("Four wide channel vectorized row major Int8 format", "Int8", "NC/4HW4"),
        ("Sixteen wide channel vectorized row major FP16 format", "FP16", "NC/16HW16"),
        ("Channel major FP16 format where channel % 8 == 0", "FP16", "NHWC8"),
        ("Channel major FP32 format", "FP32", "NHWC"),
        ("Row major linear FP32", "FP32", "linear"),
        ("Row major linear BFloat16", "BF16", "linear"),
        ("Row major Int8 format", "Int8", "linear"),
        ("Row major linear INT32", "Int32", "linear"),
        ("Half", "FP16", ""),
        ("Float", "FP32", ""),
        ("UInt8", "UInt8", ""),
        ("N/A due to dynamic shapes", "", ""),
        ("LINEAR", "", "linear"),
        ("CHW32", "", "NC/32HW32"),
        ("CDHW32", "", "NC/32DHW32"),
        ("HWC8", "", "NHWC8"),
        ("DHWC8", "", "NDHWC8"),
        ("HWC", "", "NHWC"),
        ("DLA_LINEAR", "", "DLA"),
        ("DLA half precision format", "", "DLA"),
    ],
)
def test_formats_of_all_versions(text, datatype, layout):
    assert datatype_of(text) == ("FP16" if "half" in text.lower() else datatype)
    assert layout_of(text) == layout


def test_version_8_5_has_no_metadata_and_no_medians():
    engine = load_engine("trt-8.5")
    assert [layer.time_ms for layer in engine.layers] == pytest.approx([0.01 * n for n in range(1, 8)])
    assert engine.layers[1].nodes == ("/model.4/conv/Conv", "/model.4/act/Sigmoid", "/model.4/act/Mul")
    assert "\x1e" in (ENGINES / "trt-8.5-layer.json").read_text(encoding="utf-8")  # a raw control character in a name
    assert "\x1e" not in engine.layers[1].name
    assert engine.layers[0].nodes == ()  # a Reformat's name only says where it stands


def test_version_11_splits_format_and_names_bindings_otherwise():
    engine = load_engine("trt-11", profile=False)
    assert engine.bindings == ["images", "outputs"]
    assert [str(layer.outputs[0]) for layer in engine.layers[:3]] == [
        "Int8 NC/32HW32 -1x3x640x640",
        "FP16 NHWC8 -1x32x320x320",
        "BF16 linear -1x32x320x320",
    ]
    assert [layer.kind for layer in engine.layers] == ["quantize", "conv", "myelin", "other"]
    assert engine.layers[0].type_change == ("FP16", "Int8")


def expect_error(path, *parts, profile=None):
    with pytest.raises(UserError) as caught:
        engine = load_layers(path)
        if profile:
            add_profile(engine, profile)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(profile or path), *parts):
        assert part in message
    return message


def test_times_of_another_engine_of_the_network_are_noted():
    """They share names of layers, so that some have a time."""
    fp16 = load_layers(ENGINES / "yolov5s-fp16-layer.json")
    for profile, suspected in (("yolov5s-fp16", []), ("yolov5s-rule", [True])):
        notes = add_profile(fp16, ENGINES / f"{profile}-profile.json").notes
        assert ["is it the profile of the same engine?" in note for note in notes] == suspected


def test_names_only_says_how_to_rebuild():
    expect_error(ENGINES / "names-only-layer.json", "--profilingVerbosity=detailed")


def test_swapped_or_foreign_files_are_told_apart():
    layer, profile = ENGINES / "yolov5s-groups-layer.json", ENGINES / "yolov5s-groups-profile.json"
    expect_error(profile, "is a profile", "--layer")
    expect_error(layer, "is layer information", "--profile", profile=layer)
    expect_error(layer, "names no layer of yolov5s-groups", profile=ENGINES / "trt-8.5-profile.json")
    expect_error(ENGINES / "absent.json", "does not exist")


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "is not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", '"Layers"'),
        ("[]", '"Layers"'),
        ('{"Layers": []}', "no layers"),
        ('{"Layers": [3]}', "layer 0 is not an object"),
        ('{"Layers": [{}]}', '"Name"'),
        ('{"Layers": [{"Name": "a", "Inputs": 1}]}', '"Inputs" is not a list'),
        ('{"Layers": [{"Name": "a", "Outputs": [{"Name": "t", "Dimensions": [true]}]}]}', '"Dimensions"'),
        ('{"Layers": [{"Name": "a"}], "Bindings": [null]}', '"Bindings"'),
    ],
)
def test_wrong_shapes_are_named(tmp_path, text, part):
    path = tmp_path / "L.json"
    path.write_text(text, encoding="utf-8")
    expect_error(path, part)


@pytest.mark.parametrize(
    "entry, part",
    [
        (3, "entry 1 is not an object"),
        ({}, 'no "name"'),
        ({"name": "init"}, "timeMs"),
        ({"name": "init", "medianMs": float("nan")}, "medianMs"),
        ({"name": "init", "averageMs": -1}, "averageMs"),
        ({"name": "init", "averageMs": 1e300}, "averageMs"),
        ({"count": "x"}, "count"),
    ],
)
def test_wrong_profiles_are_named(tmp_path, entry, part):
    path = tmp_path / "P.json"
    path.write_text(json.dumps([{"count": 2}, entry]), encoding="utf-8")
    expect_error(ENGINES / "loop-layer.json", part, profile=path)


def test_profile_matches_equal_names_in_order_and_notes_missing_ones(tmp_path):
    layers, profile = tmp_path / "L.json", tmp_path / "P.json"
    layers.write_text(json.dumps({"Layers": [{"Name": "a"}, {"Name": "a"}, {"Name": "b"}]}), encoding="utf-8")
    entries = [{"count": 4}, {"name": "a", "timeMs": 8}, {"name": "a", "timeMs": 4.0}]
    profile.write_text(json.dumps(entries), encoding="utf-8")
    engine = load_layers(layers)
    engine = add_profile(engine, profile)
    assert [layer.time_ms for layer in engine.layers] == [2.0, 1.0, None]
    assert len(engine.notes) == 1 and "1 of 3 layers" in engine.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le with a mark", "utf-16-be with a mark"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    """PowerShell's > writes UTF-16, its Set-Content a mark before UTF-8."""
    encoding, _, marked = encoding.partition(" ")
    layers, profile = tmp_path / "yolov5s-groups-layer.json", tmp_path / "yolov5s-groups-profile.json"
    for path in (layers, profile):
        text = ("\ufeff" if marked else "") + (ENGINES / path.name).read_text(encoding="utf-8")
        path.write_bytes(text.encode(encoding))
    engine, plain = add_profile(load_layers(layers), profile), load_engine("yolov5s-groups")
    assert [layer.name for layer in engine.layers] == [layer.name for layer in plain.layers]
    assert engine.total_ms == plain.total_ms


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "L.json"
    path.write_bytes('{"Layers": [{"Name": "a"}]}'.encode(encoding))
    expect_error(path, "save it as UTF-8")


VALUES = [
    None,
    1,
    -1,
    "",
    [],
    {},
    1e999,
    True,
    '\ud800<&"\\\x00]]>',
    10**30,
    [None],
    {"Name": "x"},
    "images",
    "outputs",
    "Reformat",
    "QDQ",
    "CONCAT",
    "kgen",
    "[ONNX Layer: /]",
    "[ONNX Layer: / /_1]",
    "[ONNX Layer: /\ud800/\x1b]",
    "/",
    "Int8",
    "FP16",
]


def mutate(document, names, rng):
    """Change, delete or exchange values anywhere in a JSON document."""
    for _ in range(rng.choice([1, 2, 5, 40])):
        node = document
        while node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.9:
                node = node[key]
            elif rng.random() < 0.15:
                del node[key]
                break
            else:
                value = rng.choice(names if isinstance(node[key], str) and rng.random() < 0.6 else VALUES)
                node[key] = copy.deepcopy(value)
                break


def test_damaged_files_give_an_error_or_an_engine(tmp_path):
    """Seeded damage to a real file: either one clear error that names the file, or everything works to the end."""
    source = json.loads((ENGINES / "yolov5s-groups-layer.json").read_text(encoding="utf-8"), strict=False)
    names = [layer["Name"] for layer in source["Layers"]]
    names += [tensor["Name"] for layer in source["Layers"] for tensor in layer["Outputs"]]
    reference = EngineGraph(load_engine("yolov5s-groups"))
    path = tmp_path / "L.json"
    outcomes = Counter()
    for seed in range(96):
        rng = random.Random(seed)
        start = rng.randrange(100)
        document = {**source, "Layers": copy.deepcopy(source["Layers"][start : start + 40])}
        mutate(document["Layers"] if rng.random() < 0.9 else document, names, rng)
        data = bytearray(json.dumps(document).encode())
        if seed % 8 == 0:
            del data[rng.randrange(len(data)) :]
        elif seed % 8 == 1:
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data))
        try:
            graph = EngineGraph(load_layers(path))
        except UserError as error:
            assert str(path) in str(error), seed
            outcomes["error"] += 1
            continue
        comparison = compare_engines(reference, graph) if seed % 2 else compare_engines(graph, reference)
        report = report_comparison(comparison)
        engine_text(report).encode("utf-8")
        engine_dot(report).source.encode("utf-8")
        claimed = Counter(index for finding in find_problems(graph) for index in finding.layers)
        assert all(claimed[layer.index] == 1 for layer in graph.layers if layer.is_reformat), seed
        outcomes["engine"] += 1
    assert min(outcomes["error"], outcomes["engine"]) > 10, outcomes


def test_engine_side_imports_neither_torch_nor_a_package():
    code = (
        "import sys, json, quantization.inspector.times, quantization.inspector.page, quantization.inspector.text; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", code], cwd=str(Path(__file__).parents[2]), check=True, stdout=subprocess.PIPE
        ).stdout
    )
    assert not {"torch", "numpy", "matplotlib", "onnx", "graphviz"} & set(loaded)
