"""What QAT says of its best epoch against PTQ, and whose weights it keeps."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from quantization.cli import quantization
from quantization.cli.quantization import Quantization
from quantization.qat.run import EpochVerdict
from quantization.upstream.record import CheckpointRecord
from support.log_records import package_records


@pytest.mark.parametrize(
    "points, plus_minus, better, words",
    [
        (0.5, 0.3, True, "QAT is better than PTQ: +0.50 +- 0.30 points"),
        (0.2, 0.3, False, "the best one is +0.20 +- 0.30 points, classes merged. Use"),
        (-0.2, 0.3, False, "the best one is -0.20 +- 0.30 points, classes merged. Use"),
        (-0.5, 0.3, False, "the best one is -0.50 +- 0.30 points, classes merged, which is worse than PTQ. Use"),
        (None, None, False, "the best one is none points"),
    ],
)
def test_only_what_is_beyond_the_noise_counts_as_better(
    points: float | None, plus_minus: float | None, better: bool, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="quantization")
    verdict = EpochVerdict(3, points, plus_minus)
    verdict.log()
    assert verdict.better is better and words in caplog.text
    assert [entry.levelno for entry in package_records(caplog)] == [logging.INFO if better else logging.WARNING]


def test_falling_back_writes_ptqs_weights_with_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    written = CheckpointRecord([], "mse", "native", {}, {}, {"a": 1.0}, run="r")
    saved: list[Any] = []
    figures: dict[str, Any] = {}
    monkeypatch.setattr(quantization.checkpoint, "load", lambda file, *_: (f"model of {file}", written.content()))
    monkeypatch.setattr(quantization.checkpoint, "save", lambda *arguments: saved.append(arguments))
    history = [{"epoch": 0}, {"epoch": 1}]
    drawn: list[Any] = []
    run = SimpleNamespace(history=history, start="PTQ's figures", draw=lambda: drawn.append(dict(figures)))
    stage = SimpleNamespace(
        options=SimpleNamespace(ptq="ptq.pt"),
        device=None,
        name="yolov5",
        summary=SimpleNamespace(record=lambda key, metrics, **more: figures.update({key: metrics, **more})),
    )
    Quantization.fall_back(stage, "qat.pt", run)  # type: ignore[arg-type]
    ((file, model, content),) = saved
    assert (file, model) == ("qat.pt", "model of ptq.pt")
    assert content == {**written.content(), "history": history} and content["epoch"] == 0
    assert figures == {"qat": "PTQ's figures", "epochs": history, "epoch": 0}
    assert drawn == [figures]
