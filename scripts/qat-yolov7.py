"""PTQ, QAT, export, sensitivity and mAP of YOLOv7. Run it from a YOLOv7 checkout: python scripts/qat-yolov7.py --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.cli.parser import main

if __name__ == "__main__":
    main("yolov7")
