"""The shims under which upstream's own scripts run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from quantization.quantizers.native import QuantDescriptor, TensorQuantizer
from quantization.upstream import shims
from support.workflow import TASKS, run_task


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_a_slow_suppression_leaves_out_no_image(name: str, checkouts: Callable[[str], Path]) -> None:
    result = run_task(checkouts(name), "slow_suppression", program=TASKS.with_name("upstream_tasks.py"))
    assert result == {"counts": [1, 3], "same": True}


@pytest.mark.parametrize(
    ("quantized", "asked", "used"), [(True, 12, 13), (True, 17, 17), (False, 12, 12), (True, None, None)]
)
def test_the_opset_of_quantized_models_can_hold_them(
    quantized: bool,
    asked: int | None,
    used: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        torch.onnx, "export", lambda model, *args, dynamo=True, **more: seen.update(more, dynamo=dynamo)
    )
    shims.shim_torch_onnx()
    model = torch.nn.Sequential(TensorQuantizer(QuantDescriptor())) if quantized else torch.nn.Sequential()
    with caplog.at_level("WARNING", "quantization"):
        torch.onnx.export(model, (), "file.onnx", **({} if asked is None else {"opset_version": asked}))
    assert seen.get("opset_version") == used and seen["dynamo"] is False
    assert ("opset 13" in caplog.text) is (asked != used)
