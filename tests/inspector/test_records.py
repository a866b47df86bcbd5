"""What the type and the name of a layer say about it."""

from __future__ import annotations

from typing import Sequence

import pytest

from quantization.inspector import records
from quantization.inspector.classify import kind_of
from quantization.inspector.compare import compare_engines
from quantization.inspector.names import common_module, detect_block, module_of
from quantization.inspector.records import Layer
from support.engine_files import load_engine, load_graph


@pytest.mark.parametrize(
    "layer_type, expected",
    [
        ("CaskConvolution", "conv"),
        ("CaskGemmConvolution", "conv"),
        ("CASKDECONVOLUTIONV2", "conv"),
        ("correlation", "conv"),
        ("Reformat", "reformat"),
        ("MyelinReformat", "reformat"),
        ("reformat", "reformat"),
        ("PointWiseV2", "pointwise"),
        ("ElementWise", "pointwise"),
        ("CaskPooling", "pooling"),
        ("Resize", "resize"),
        ("Concatenation", "concat"),
        ("Shuffle", "shuffle"),
        ("Slice", "shuffle"),
        ("Constant", "constant"),
        ("NoOp", "no-op"),
        ("kgen", "myelin"),
        ("Myelin", "myelin"),
        ("{ForeignNode[a...b]}", "myelin"),
        ("gemm", "matmul"),
        ("signal", "other"),
        ("", "other"),
    ],
)
def test_kinds_match_without_case(layer_type, expected):
    assert Layer(0, "x", layer_type, [], []).kind == expected


def test_precision_is_that_of_the_first_input():
    layers = load_engine("yolov5s-no-rule").layers
    head = next(layer for layer in layers if layer.name == "/model.24/m.0/Conv")
    first = next(layer for layer in layers if "/model.0/conv/Conv" in layer.name)
    assert (head.precision, first.precision) == ("FP16", "Int8")
    assert (head.record["Weights"]["Type"], first.record["Weights"]["Type"]) == ("Half", "Int8")


def test_names_lead_to_upstream_modules():
    assert module_of("/model.2/m/m.0/cv1/conv/Conv") == "model.2.m.0.cv1.conv"
    assert module_of("/model.24/m.0/Conv") == "model.24.m.0"
    assert module_of("Conv_12") == ""
    assert common_module(["/model.1/conv/Conv", "/model.10/act/Mul"]) == ""
    name = "Reformatting CopyNode for Input Tensor 0 to /model.1/conv/Conv + PWN(/model.1/act/Sigmoid)"
    assert Layer(0, name, "Reformat", [], []).nodes == ()
    assert Layer(0, "Conv_12 || Conv_14", "CaskConvolution", [], []).nodes == ("/Conv_12", "/Conv_14")
    layer = Layer(
        0,
        "",
        "CaskConvolution",
        [],
        [],
        metadata=(
            "[ONNX Layer: /model/model.2/m/m.0/cv2/conv/Conv]\x1e[ONNX Layer: /model/model.2/m/m.0/cv2/act/Sigmoid]"
            "[ONNX Layer: /model/model.2/m/m.0/cv2/act/Mul][ONNX Layer: /model/model.2/m/m.0/addop/Add]"
            "[ONNX Layer: /model.3/conv/_input_quantizer/QuantizeLinear]"
        ),
    )
    assert layer.nodes[-1] == "/model.2/m/m.0/Add"
    assert layer.title == "model.2.m.0: Conv + SiLU + Add"


def test_a_silu_in_other_terms_keeps_its_names():
    """As layers of an engine of 8.6.0 for what onnx_cleanup.respell_float_silu writes."""
    scope = "/model/model.0/act"
    conv = Layer(
        0, f"/model/model.0/conv/Conv + {scope}/Mul_output_0_factor + {scope}/SiluHalf", "CaskConvolution", [], []
    )
    silu = Layer(1, f"PWN(PWN({scope}/SiluTanh, {scope}/SiluScale), {scope}/SiluAdd)", "PointWiseV2", [], [])
    assert conv.nodes == ("/model.0/conv/Conv",)
    assert silu.nodes == ("/model.0/act/Sigmoid", "/model.0/act/Mul")
    assert (conv.title, silu.title) == ("model.0: Conv", "model.0: SiLU")


def test_facts_are_computed_once_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counting(layer_type: str, nodes: Sequence[str] = ()) -> str:
        calls.append(layer_type)
        return kind_of(layer_type, nodes)

    monkeypatch.setattr(records, "kind_of", counting)
    first, second = load_graph("yolov5s-groups"), load_graph("yolov5s-no-rule")
    compare_engines(first, second)
    assert len(calls) == len(first.layers) + len(second.layers)


def test_a_layer_equals_only_itself() -> None:
    first, second = (Layer(0, "x", "Reformat", [], []) for _ in range(2))
    assert first == first and first != second and len({first, second}) == 2


@pytest.mark.parametrize(
    "nodes, expected",
    [
        (["/model.24/m.0/Conv"], 24),
        (["/model.105/m/m.2/Conv", "/model.105/Reshape"], 105),
        (["/model.2/m/m.0/cv1/conv/Conv"], -1),
        (["/model.22/cv3.0/cv3.0.2/Conv"], 22),
        (["/model.23/one2one_cv2.1/one2one_cv2.1.2/Conv"], 23),
        (["/model.22/cv3.0/cv3.0.1/conv/Conv", "/model.22/cv3.0/cv3.0.1/act/Sigmoid"], -1),
        (["/model.22/dfl/conv/Conv"], -1),
        (["/model.24/m.0/Conv", "/model.24/m.1/Conv"], -1),
        (["/model.24/m.0/Reshape"], -1),
        ([], -1),
    ],
)
def test_detect_convolutions_are_known_by_their_names(nodes: list[str], expected: int) -> None:
    assert detect_block(nodes) == expected
