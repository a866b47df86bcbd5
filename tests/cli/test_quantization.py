"""The stages of quantize, without their work: what each is given of those before it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantization.cli import quantization, stages
from quantization.cli.options import QuantizeCommand
from quantization.cli.quantization import Quantization
from quantization.evaluation.bootstrap import Samples
from quantization.evaluation.coco import Metrics
from quantization.upstream.trained_size import keep_trained_side


def metrics(value: float) -> Metrics:
    samples = Samples(*(np.full(2, value) for _ in Samples.__dataclass_fields__))
    return Metrics(value, value, 4, {}, value, samples=samples)


class Stages(Quantization):
    """Measures what it is told, and leaves ``left`` in float for the budget; training is only noted."""

    def __init__(self, left: list[str]) -> None:
        self.options = QuantizeCommand("w.pt", qat="q.pt", max_drop=0.1)
        self.model: Any = nn.Identity()
        self.summary: Any = SimpleNamespace(content={"figures": {}}, record=self.record)
        self.state: Any = SimpleNamespace(stage="started", facts={}, keep=lambda facts, _=None: self.kept(facts))
        self.evaluator: Any = SimpleNamespace(references={})
        self.dataset: Any = None
        self.left = left
        self.trained: dict[str, Any] = {}

    def record(self, label: str, found: Metrics, **more: Any) -> None:
        self.summary.content["figures"][label] = {**found.content(), **more}

    def kept(self, facts: dict[str, Any]) -> None:
        self.state.facts.update(facts)

    def measure(self, model: nn.Module, label: str, quiet: bool = False) -> Metrics:
        return metrics({"float": 0.5, "PTQ": 0.3}[label])

    def ptq(self, weights: Any) -> Any:
        return None

    def hold_budget(self, *given: Any) -> Any:
        return SimpleNamespace(left=self.left, metrics=metrics(0.49 if self.left else 0.3))

    def qat(self, teacher: nn.Module, written: Any) -> None:
        reference = self.evaluator.references["ptq"]
        self.trained = {"start": self.state.facts["start"]["map"], "reference": reference.map[0]}


@pytest.mark.parametrize("left, expected", [([], 0.3), (["a unit"], 0.49)])
def test_qat_is_compared_with_the_ptq_that_is_saved(
    left: list[str], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is the one with the layers that --max-drop leaves in float."""
    monkeypatch.setattr(quantization, "prepare", lambda *given: None)
    stages = Stages(left)
    stages._stages()
    assert stages.trained == {"start": expected, "reference": expected}
    assert stages.evaluator.references["float"].map[0] == 0.5


def test_quantize_warns_of_another_image_size_than_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.stride = torch.tensor([8.0, 16.0, 32.0])  # type: ignore[assignment]
    keep_trained_side(model, {"opt": {"imgsz": 416}})
    done = SimpleNamespace(model=model, run=lambda: None)
    monkeypatch.setattr(stages, "Quantization", lambda *_: done)
    monkeypatch.setattr(stages, "is_done", lambda options: False)
    (tmp_path / "best.pt").touch()
    files = (str(tmp_path / name) for name in ("best.pt", "ptq.pt"))
    stages.run_quantize("yolov5", QuantizeCommand(*files, summary=str(tmp_path / "summary.json")))
    assert [message for message in caplog.messages if "trained at 416 pixels" in message]
