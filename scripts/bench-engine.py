#!/usr/bin/env python3
"""Build TensorRT engines from ONNX and time them against each other: see --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quantization.engine.bench import Check, EngineBoxes
from quantization.engine.cli import main
from quantization.errors import run_main


def make_check(source: str | None) -> Check:
    """What compares boxes; imported here because it needs OpenCV, which a machine that only builds and times may lack."""
    try:
        from quantization.evaluation.engine_check import EngineCheck
    except ImportError as error:
        text = f"boxes are not compared with ONNX Runtime's ({error})"
        return lambda engine, onnx: EngineBoxes(text, False)
    return EngineCheck(source)


if __name__ == "__main__":
    run_main(lambda arguments: main(arguments, make_check=make_check))
