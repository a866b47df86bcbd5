"""The shims under which upstream's own scripts run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Callable

import pytest
import torch

from quantization.upstream.shims import shim_torch_amp
from support.workflow import TASKS, run_task


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_a_slow_suppression_leaves_out_no_image(name: str, checkouts: Callable[[str], Path]) -> None:
    result = run_task(checkouts(name), "slow_suppression", program=TASKS.with_name("upstream_tasks.py"))
    assert result == {"counts": [1, 3], "same": True}


def test_mixed_precision_as_upstream_writes_it_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of both train.py; the autocast is on or off as the old one's was."""
    for name in ("autocast", "GradScaler"):
        monkeypatch.setattr(torch.cuda.amp, name, getattr(torch.cuda.amp, name))
    shim_torch_amp()
    amp = torch.cuda.amp
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not amp.GradScaler(enabled=False).is_enabled()
        for context in (amp.autocast(False), amp.autocast(enabled=False)):
            with context:
                assert not torch.is_autocast_enabled()
    if torch.cuda.is_available():
        with amp.autocast(True):
            assert torch.is_autocast_enabled() and torch.get_autocast_gpu_dtype() == torch.float16
