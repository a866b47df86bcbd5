"""How ONNX Runtime is set up, wherever a graph is run."""

from __future__ import annotations

import os
from typing import Any


def session_options() -> Any:
    """An ``onnxruntime.SessionOptions`` with as many threads as OMP_NUM_THREADS says.

    ONNX Runtime has threads of its own, as many as cores; several processes side by side would fight for them.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int((os.environ.get("OMP_NUM_THREADS") or "0").split(",")[0])
    return settings
