#!/usr/bin/env python3
"""Build TensorRT engines from ONNX and time them against each other: see --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quantization.engine.cli import main
from quantization.errors import run_main

if __name__ == "__main__":
    run_main(main)
