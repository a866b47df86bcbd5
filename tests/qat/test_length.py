"""Steps per epoch that follow from the data, and runs that are too short for their learning rate."""

from __future__ import annotations

import logging

import pytest

from quantization.options import QatOptions
from quantization.qat.length import warn_if_short, with_steps
from support.log_records import package_records


@pytest.mark.parametrize("images, steps", [(1, 30), (128, 30), (301, 31), (1000, 100), (118_287, 200)])
def test_an_epoch_is_one_pass_within_bounds(images: int, steps: int) -> None:
    assert with_steps(QatOptions(), images, 10).steps == steps
    assert with_steps(QatOptions(iters=7), images, 10).steps == 7


def test_a_short_run_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quantization")
    warn_if_short(with_steps(QatOptions(), 1, 10))  # the shortest default
    warn_if_short(QatOptions(epochs=4, iters=13, lr=1e-5))
    assert not package_records(caplog)
    warn_if_short(QatOptions(epochs=4, iters=13))
    (message,) = (entry.getMessage() for entry in package_records(caplog))
    assert "QAT of 52 steps is too short for --lr 0.0001" in message
    assert "give it 300 steps (--epochs, --iters), or --lr 2e-05" in message
