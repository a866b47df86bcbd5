"""Times of an engine's layers, in trtexec's format."""

from __future__ import annotations

import pytest

from quantization.engine.cuda import Cuda
from quantization.engine.layer_export import measure_layers, profile_records
from quantization.engine.runtime import Engine
from support.fake_tensorrt import fake_cuda_fixture, fake_trt_fixture  # noqa: F401


def test_layer_times_leave_the_warm_up_out(fake_cuda, fake_trt):
    fake_cuda()
    fake_trt()
    device = Cuda()
    engine = Engine(b"plan", device)
    times = measure_layers(engine, device, iterations=4, warmup=3)
    assert times == {"conv\x1e1": [4, 5, 6, 7], "add": [1, 1.25, 1.5, 1.75]}  # the fake's time grows with its runs


def test_profile_has_trtexecs_fields():
    times = {"a": [1.0, 2.0, 6.0], "b": [0.5, 0.25, 0.25]}
    head, first, second = profile_records(times, 3)
    assert head == {"count": 3}
    assert first == {"name": "a", "timeMs": 9.0, "averageMs": 3.0, "medianMs": 2.0, "percentage": 90.0}
    assert second["percentage"] == pytest.approx(10) and second["medianMs"] == 0.25
