"""PTQ, QAT, export, sensitivity and mAP of YOLOv5. Run it from a YOLOv5 checkout: python scripts/qat-yolov5.py --help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import run_main


def main(arguments: Sequence[str] | None) -> int:
    """Parse and carry out; imported here because it takes seconds, in which a signal may come."""
    from quantization.cli.parser import run

    return run("yolov5", arguments)


if __name__ == "__main__":
    run_main(main)
