"""Stands in for ``quantization.upstream``: runs the launcher that the stub checkout holds instead of a training."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_path("launcher.py", run_name="__main__")
