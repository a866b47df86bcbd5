"""Timing engines: slices, statistics, interleaved rounds."""

from __future__ import annotations

import contextlib
import math
import statistics

import numpy as np
import pytest

from quantization.engine import timing
from quantization.engine.cuda import Cuda
from quantization.engine.runtime import Engine
from quantization.engine.survivors import Survivors
from support import fake_tensorrt
from support.fake_tensorrt import fake_cuda_fixture, fake_trt_fixture, lose_cuda  # noqa: F401


class Clock:
    """CUDA events on a clock that each launch moves by the next of ``durations``."""

    def __init__(self, durations):
        self.now, self.durations, self.launched = 0.0, iter(durations), []

    def launch(self):
        self.launched.append(next(self.durations))
        self.now += self.launched[-1]

    def event_record(self, event, stream):
        event[0] = self.now

    def event_synchronize(self, event):
        pass

    def event_elapsed(self, start, end):
        return end[0] - start[0]


def test_slice_times_every_launch_but_the_first_of_each_batch():
    clock = Clock(np.random.default_rng(0).uniform(0.5, 2.0, 1000))
    times = timing.time_slice(clock, 0, clock.launch, 0.1, [[0.0] for _ in range(21)])
    # 8 for a first estimate, then at most 20 between two synchronizations, each batch behind one that is not timed
    launched = clock.launched
    timed, position, count = [], 0, timing.FIRST_LAUNCHES
    while position < len(launched):
        timed += launched[position + 1 : position + 1 + count]
        position += 1 + count
        remaining = 100 - sum(timed)
        count = min(20, math.ceil(remaining / np.mean(timed))) if remaining > 0 else len(launched)
    assert np.allclose(times, timed)
    assert 100 <= times.sum() < 110


def test_round_statistics_against_the_standard_library():
    times = np.random.default_rng(1).uniform(1, 3, 501)
    result = timing.as_round(times)
    assert result.qps == pytest.approx(501 / (sum(times) / 1000)) and result.launches == 501
    assert result.latency_ms == pytest.approx(statistics.median(times))
    assert result.p99_ms == pytest.approx(statistics.quantiles(times, n=100, method="inclusive")[98])


def test_order_of_rounds_cancels_a_drift():
    names = ["a", "b", "c", "d"]
    order = timing.round_order(names, 4)
    assert all(sorted(one) == names for one in order) and order[0] == names
    times = [name for one in order for name in one]  # engine of each slice; let each be slower than the one before
    drift = {name: sum(index for index, other in enumerate(times) if other == name) for name in names}
    assert len(set(drift.values())) == 1


def test_summary_pairs_the_engines_of_a_round():
    # both engines lose the same share of speed from round to round: the ratio stays what it is
    qps = {"ptq": [100.0, 80.0, 50.0], "qat": [120.0, 96.0, 60.0]}
    results = {name: [timing.Round(value, 1000 / value) for value in values] for name, values in qps.items()}
    summary = timing.summarize(results, "ptq", 16)
    assert summary["qat"]["ratio"] == {
        "median": pytest.approx(1.2),
        "min": pytest.approx(1.2),
        "max": pytest.approx(1.2),
    }
    assert summary["qat"]["qps"] == {"median": 96.0, "min": 60.0, "max": 120.0}
    assert summary["ptq"]["images_per_s"]["median"] == 1280 and summary["ptq"]["latency_ms"]["max"] == 20
    assert [item["qps"] for item in summary["ptq"]["rounds"]] == qps["ptq"]


def test_interleaved_timing_replays_graphs(fake_cuda, fake_trt):
    fake_cuda()
    fake_trt()
    device, lines = Cuda(), []
    engines = {name: Engine(b"plan", device, name) for name in ("a", "b")}
    results, graphs = timing.time_engines(
        engines, device, timing.TimingOptions(0.05, 0.01, 3), Survivors(device.is_lost), lines.append
    )
    assert graphs and {name: len(rounds) for name, rounds in results.items()} == {"a": 3, "b": 3}
    for item in results["a"]:
        assert item.latency_ms == pytest.approx(fake_tensorrt.LAUNCH_MS, rel=1e-4)
        assert item.qps == pytest.approx(1000 / fake_tensorrt.LAUNCH_MS, rel=1e-4)
    assert engines["a"].context.runs == 2 and len(lines) == 3  # one run before the capture, one in it


def test_one_engine_without_a_graph_means_none_for_all(fake_cuda, fake_trt, monkeypatch):
    fake_cuda()
    fake_trt()
    device, lines = Cuda(), []
    engines = {name: Engine(b"plan", device, name) for name in ("a", "b")}
    capture = device.graph_capture

    def only_the_first(stream, enqueue):
        engines["b"].context.refuse = stream == engines["b"].stream
        try:
            return capture(stream, enqueue)
        finally:
            engines["b"].context.refuse = False

    monkeypatch.setattr(device, "graph_capture", only_the_first)
    assert timing.capture_graphs(engines, device, lines.append) == {}
    assert "no CUDA graphs" in lines[0] and "b: execution failed" in lines[0]


def timed_with(fault, fake_trt, rounds=4):
    """Three engines of which b has a fault; rounds by name, why engines failed, which ended CUDA."""
    fake_trt().faults[b"b"] = fault
    device = Cuda()
    survivors = Survivors(device.is_lost)
    options = timing.TimingOptions(0.02, 0.01, rounds, cuda_graph=False)
    with contextlib.ExitStack() as stack:
        engines = {name: stack.enter_context(Engine(name.encode(), device, name)) for name in ("a", "b", "c")}
        results, _ = timing.time_engines(engines, device, options, survivors)
    return {name: len(found) for name, found in results.items()}, survivors.problems, survivors.ended_by


RUNS = 25  # of one engine in a round: 9 to warm up, 9 for an estimate, 7 more


def test_runs_of_a_round(fake_cuda, fake_trt):
    """What the two tests below count in."""
    fake_cuda()
    counted = []
    timed_with(lambda runs: bool(counted.append(runs)), fake_trt)
    assert len(counted) == 1 + 4 * RUNS


@pytest.mark.parametrize("at", [0, 1, 1 + RUNS, 1 + 3 * RUNS + 15])
def test_an_engine_that_is_refused_leaves_the_others(fake_cuda, fake_trt, at):
    fake_cuda()
    rounds, problems, ended_by = timed_with(lambda runs: runs == at, fake_trt)
    assert rounds == {"a": 4, "c": 4} and ended_by is None
    assert list(problems) == ["b"] and "execution failed" in problems["b"]


@pytest.mark.parametrize("at, kept", [(0, 0), (1, 0), (1 + RUNS, 1), (1 + 2 * RUNS + 20, 2), (4 * RUNS, 3)])
def test_rounds_before_the_error_that_ends_cuda_count(fake_cuda, fake_trt, at, kept):
    fake_cuda()

    def fault(runs):
        if runs == at:
            lose_cuda()  # as on a GPU, the call that starts the work succeeds
        return False

    rounds, problems, ended_by = timed_with(fault, fake_trt)
    assert rounds == ({"a": kept, "c": kept} if kept else {}) and ended_by == "b"
    assert "cudaErrorIllegalAddress" in problems.pop("b")
    assert problems == ({} if kept else dict.fromkeys("ac", "not run, since b ended CUDA for this process"))
