"""Stands in for scripts/bench-engine.py: the real one's parser reads the command line; a plan is a copy of its ONNX."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STUB = json.loads((Path(__file__).resolve().parents[1] / "quantization" / "stub.json").read_text())
sys.path.insert(0, STUB["bundle"])

from quantization.engine import cli

options = cli.parser().parse_args()
for spec in cli.make_specs(options):
    assert options.build_only and spec.mode == ("fp16" if spec.name.endswith("float") else "qat")
    assert spec.plan is not None and spec.onnx is not None
    Path(spec.plan).write_text(Path(spec.onnx).read_text())
Path(options.json).write_text(json.dumps({"versions": {"tensorrt": "1.2.3"}}))
