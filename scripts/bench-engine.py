#!/usr/bin/env python3
"""Build TensorRT engines from ONNX and time them against each other: see --help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quantization.errors import run_main


def main(arguments: Sequence[str] | None) -> int:
    """Parse and carry out; imported here because it takes a while, in which a signal may come."""
    from quantization.engine.cli import main as command

    return command(arguments)


if __name__ == "__main__":
    run_main(main)
