"""PTQ of a float ONNX of any detector, without a checkout: python scripts/quantize-onnx.py --help. No torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import run_main


def main(arguments: Sequence[str] | None) -> int:
    """Parse and carry out; imported here because it takes seconds, in which a signal may come."""
    from quantization.cli.onnx_command import run_onnx_command

    return run_onnx_command(arguments)


if __name__ == "__main__":
    run_main(main)
