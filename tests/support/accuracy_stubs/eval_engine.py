"""Stands in for scripts/eval-engine.py: one mAP for every plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path

Path(sys.argv[1]).read_text()  # fails where there is no plan
Path(sys.argv[sys.argv.index("--save-json") + 1]).write_text(json.dumps({"map": 0.5, "map50": 0.7}))
