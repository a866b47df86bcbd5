"""Upstream's AP of our detections against upstream's own evaluation loop, on scripted outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import pytest

from support.workflow import TASKS, run_python


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_upstreams_own_loop(name: str, seed: int, checkouts: Callable[[str], Path]) -> None:
    done = run_python(checkouts(name), TASKS.with_name("upstream_tasks.py"), "average_precision", name, seed)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert 0.2 < result["theirs"][0] < 0.9  # some right, some wrong
    assert result["ours"] == pytest.approx(result["theirs"], abs=1e-6)
    assert result["empty"] == [0.0, 0.0]
