"""What commands print at their end is what comes next: each line is read by the command that it names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from quantization.cli.closings import after_export, after_quantize, after_sensitive, after_test
from quantization.cli.options import EvaluationCommand, ExportCommand, QuantizeCommand, SensitiveCommand
from quantization.cli.parser import parse
from quantization.closing import closing_text
from quantization.engine.arguments import parser as bench_parser
from quantization.engine.named_engines import make_specs
from quantization.option_fields import record
from quantization.options import DataOptions, ExportOptions, PlacementOptions
from quantization.preflight.report import preflight
from support.qdq_net import pyramid


def test_quantize_names_the_file_to_ship_and_its_export(tmp_path: Path) -> None:
    options = QuantizeCommand(
        "w.pt", "a b.pt", "qat.pt", str(tmp_path / "summary.json"), images=DataOptions(data="d.yaml", imgsz=320)
    )
    figures = {key: {"map": value, "map50": value} for key, value in (("float", 0.5), ("ptq", 0.49), ("qat", 0.3))}
    Path(options.summary).write_text(json.dumps({"figures": figures, "options": record(options)}))
    closing = after_quantize("yolov7", options)
    assert closing.verdict.startswith("Ship a b.pt: PTQ, 1.00 points below float")
    assert set(closing.written) == {"a b.pt", "qat.pt", options.summary, str(tmp_path / "summary.png")}
    assert "best epoch" in closing.written["qat.pt"]
    (line,) = closing.following
    assert parse("yolov7", shlex.split(line)[2:]) == parse(
        "yolov7", ["export", "a b.pt", "--size", "320", "--save", "a b.onnx"]
    )


def test_quantize_says_that_qat_fell_back_to_ptq(tmp_path: Path) -> None:
    options = QuantizeCommand("w.pt", qat="qat.pt", summary=str(tmp_path / "summary.json"))
    figures = {key: {"map": 0.5, "map50": 0.5, "epoch": 0} for key in ("ptq", "qat")}
    Path(options.summary).write_text(json.dumps({"figures": figures, "options": record(options)}))
    assert after_quantize("yolov5", options).written["qat.pt"] == "PTQ's weights, as no epoch was better"


def test_export_leads_to_an_engine_of_its_mode() -> None:
    good, bad = (preflight(pyramid("torchscript", scales)) for scales in ((0.1, 0.1), (0.1, 0.2)))
    for report, mode, verdict in ((good, "qat", "passed"), (bad, "qat", "FAILED"), (None, "fp16", "")):
        closing = after_export(ExportCommand("w.pt", save="m.onnx"), report)
        words = bench_parser().parse_args(shlex.split(closing.following[-1])[2:])
        assert (words.onnx, words.modes) == ("m.onnx", mode) and verdict in closing.verdict


def test_export_names_the_folders_for_servers() -> None:
    options = ExportCommand("w.pt", save="net.onnx", triton="models", deepstream="ds")
    assert set(after_export(options, None).written) == {"net.onnx", "models/net", "ds"}
    assert set(after_export(ExportCommand("w.pt"), None).written) == {"w.onnx"}


@pytest.mark.parametrize(
    "dynamic, batch, smallest", [(True, 8, (1, 3, 320, 416)), (True, 1, (1, 3, 320, 416)), (False, 8, None)]
)
def test_the_engines_take_the_batches_of_the_export(
    dynamic: bool, batch: int, smallest: tuple[int, ...] | None
) -> None:
    """Triton refuses a plan that does not allow its max_batch_size."""
    graph = ExportOptions(size=(320, 416), batch=batch, dynamic=dynamic)
    _, timed, _, served = after_export(
        ExportCommand("w.pt", save="net.onnx", triton="models", graph=graph), None
    ).following
    words = bench_parser().parse_args(shlex.split(timed)[2:])
    assert words.batch == (batch if dynamic and batch > 1 else None)
    (spec,) = make_specs(bench_parser().parse_args(shlex.split(served)[2:]))
    assert (spec.onnx, spec.mode, spec.plan) == ("models/net/1/model.onnx", "fp16", "models/net/1/model.plan")
    assert (spec.options.min_shapes or {}).get("images") == smallest
    assert (spec.options.shapes or {}).get("images") == (smallest and (batch, *smallest[1:]))


def test_sensitive_proposes_a_quantize(tmp_path: Path) -> None:
    summary = tmp_path / "s.json"
    options = SensitiveCommand(
        "w.pt",
        str(summary),
        images=DataOptions(cocodir="my coco", imgsz=320),
        placement=PlacementOptions(("model\\.1",)),
    )
    summary.write_text(json.dumps({"ignore_policy": ["model\\.1", "model\\.2\\.cv1"]}))
    for quantized, weight in ((False, "w.pt"), (True, "FLOAT.pt")):
        (line,) = after_sensitive("yolov5", options, quantized).following
        _, asked = parse("yolov5", shlex.split(line)[2:])
        assert isinstance(asked, QuantizeCommand) and asked.weight == weight and asked.images.cocodir == "my coco"
        assert asked.placement.ignore_policy == ("model\\.1", "model\\.2\\.cv1") and asked.images.imgsz == 320
    summary.write_text(json.dumps({"ignore_policy": ["model\\.1"]}))
    assert after_sensitive("yolov5", options, False).following == []  # nothing that this run did not have


def test_test_shows_its_figures() -> None:
    content: dict[str, Any] = {"map": 0.125, "map50": 0.5, "merged": 0.25, "upstream_map": 0.2, "upstream_map50": 0.6}
    content["conditions"] = "3 images"
    content["against"] = {"float.pt": {"map": {"points": -1.5, "plus_minus": 0.5}}}
    text = closing_text(after_test(EvaluationCommand("m.onnx", "out.json"), content))
    assert "0.1250" in text and "-1.50 +- 0.50 points" in text and "3 images" in text
    assert "upstream's own AP" in text and "0.6000" in text and "out.json" in text
