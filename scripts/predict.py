#!/usr/bin/env python3
"""Draw what a .pt, .onnx or TensorRT engine finds, or how two of them differ: see --help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quantization.errors import run_main


def main(arguments: Sequence[str] | None) -> int:
    """Parse and carry out; imported here because it takes seconds, in which a signal may come."""
    from quantization.cli.predict import main as predict_main

    return predict_main(arguments)


if __name__ == "__main__":
    run_main(main)
