"""The shims under which upstream's own scripts run."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from support.workflow import TASKS, run_task


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_a_slow_suppression_leaves_out_no_image(name: str, checkouts: Callable[[str], Path]) -> None:
    result = run_task(checkouts(name), "slow_suppression", program=TASKS.with_name("upstream_tasks.py"))
    assert result == {"counts": [1, 3], "same": True}
