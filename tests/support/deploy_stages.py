"""deploy without its stages: what stands for quantize and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.cli import deploy
from quantization.cli.options import DeployCommand, ExportCommand, QuantizeCommand
from quantization.cli.parser import parse
from quantization.cli.resume import plain_record
from quantization.evaluation.comparison import NamedImages
from quantization.preflight.report import Report, preflight
from support.qdq_net import pyramid

MAPS = {"float": 0.5, "ptq": 0.4, "qat": 0.45}


@pytest.fixture(name="stages")
def stages_fixture(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Stand-ins for quantize and export, which keep what they are asked for; no TensorRT."""
    calls: dict[str, list[Any]] = {"quantize": [], "export": [], "images": [], "exportable": []}

    def run_quantize(name: str, options: QuantizeCommand, hint: str, checked: Callable[[Any], None]) -> None:
        calls["quantize"].append(options)
        checked("the float model")
        keys = ["float", "ptq", *(["qat"] if options.qat else [])]
        figures = {key: {"map": MAPS[key], "map50": 0.6, "images": 3, "per_class": {"a": MAPS[key]}} for key in keys}
        summary = {"figures": figures, "options": plain_record(options), "stage": "finished"}
        Path(options.summary).write_text(json.dumps(summary))

    def run_export(name: str, options: ExportCommand, file: str, images: NamedImages | None) -> Report | None:
        calls["export"].append((options.weight, options.graph, file))
        calls["images"].append(images)
        return None if file.endswith("float.onnx") else preflight(pyramid("torchscript"))

    monkeypatch.setattr(deploy, "run_quantize", run_quantize)
    monkeypatch.setattr(deploy, "run_export", run_export)
    monkeypatch.setattr(deploy, "check_exportable", lambda *asked: calls["exportable"].append(asked))
    monkeypatch.setattr(deploy, "usable_images", lambda name, options: NamedImages(str(options.data), [name]))
    monkeypatch.setattr(deploy, "tensorrt_problem", lambda: "none here")
    return calls


def options_of(folder: Path, *words: str) -> DeployCommand:
    """Of the command, as it is typed."""
    _, options = parse("yolov5", ["deploy", "w.pt", "--data", "my data.yaml", "--out", str(folder), *words])
    assert isinstance(options, DeployCommand)
    return options
