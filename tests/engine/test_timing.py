"""Timing engines: slices, statistics, interleaved rounds, layer times, reports, trtexec in their place."""

from __future__ import annotations

import json
import math
import statistics
import sys

import numpy as np
import pytest

from quantization.engine import cli as bench_cli
from quantization.engine import layer_export as layer_times
from quantization.engine import timing, trtexec
from quantization.engine.bench import same_batch
from quantization.engine.cuda import Cuda
from quantization.engine.runtime import Engine
from quantization.errors import UserError
from support import fake_tensorrt
from support.fake_tensorrt import fake_cuda_fixture, fake_trt_fixture  # noqa: F401
from support.workflow import SUPPORT


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
    results, graphs = timing.time_engines(engines, device, 3, 0.05, 0.01, report=lines.append)
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
    assert timing._capture(engines, device, lines.append) == {}
    assert "no CUDA graphs" in lines[0] and "b: execution failed" in lines[0]


def test_layer_times_leave_the_warm_up_out(fake_cuda, fake_trt):
    fake_cuda()
    fake_trt()
    device = Cuda()
    engine = Engine(b"plan", device)
    times = layer_times.measure_layers(engine, device, iterations=4, warmup=3)
    assert times == {"conv\x1e1": [4, 5, 6, 7], "add": [1, 1.25, 1.5, 1.75]}  # the fake's time grows with its runs


def test_profile_has_trtexecs_fields():
    times = {"a": [1.0, 2.0, 6.0], "b": [0.5, 0.25, 0.25]}
    head, first, second = layer_times.profile_records(times, 3)
    assert head == {"count": 3}
    assert first == {"name": "a", "timeMs": 9.0, "averageMs": 3.0, "medianMs": 2.0, "percentage": 90.0}
    assert second["percentage"] == pytest.approx(10) and second["medianMs"] == 0.25


def test_plans_from_the_command_line_to_table_and_json(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    fake_trt(high=(8, 3, 4, 4))
    for name in ("ptq", "qat"):
        (tmp_path / f"{name}.plan").write_bytes(name.encode())
    out = tmp_path / "report.json"
    assert (
        bench_cli.main(
            [
                "--load-engine",
                str(tmp_path / "ptq.plan"),
                "--load-engine",
                f"rule={tmp_path}/qat.plan",
                "--batch",
                "8",
                "--rounds",
                "2",
                "--duration",
                "0.05",
                "--warmup",
                "0.01",
                "--export-profile",
                str(tmp_path / "{name}-profile.json"),
                "--export-layer-info",
                str(tmp_path / "{name}-layer.json"),
                "--json",
                str(out),
            ]
        )
        == 0
    )
    report = json.loads(out.read_text())
    assert report["gpu"] == "Fake GPU" and report["versions"]["tensorrt"] == "8.6.0" and report["batch"] == 8
    ptq, rule = report["engines"]
    assert rule["name"] == "rule" and rule["shape"] == [8, 3, 4, 4] and len(rule["rounds"]) == 2
    assert rule["images_per_s"]["median"] == pytest.approx(8 * rule["qps"]["median"])
    assert ptq["ratio"]["median"] == 1 and "--loadEngine" in ptq["trtexec"]
    assert json.loads((tmp_path / "rule-profile.json").read_text())[1]["name"] == "conv\x1e1"
    assert json.loads((tmp_path / "ptq-layer.json").read_text()) == {"Layers": [], "Bindings": []}
    printed = capsys.readouterr().out.splitlines()
    header = next(line for line in printed if line.startswith("engine"))
    row = next(line for line in printed if line.startswith("rule "))
    assert f"{rule['qps']['median']:.1f}" in row and len(row) <= len(header) + 1


def test_engines_of_different_batches_are_not_compared():
    assert same_batch({"a": 16, "b": 16}) == 16
    with pytest.raises(UserError, match="a 1, b 16"):
        same_batch({"a": 1, "b": 16})


@pytest.fixture
def fake_trtexec(tmp_path, monkeypatch):
    program = tmp_path / "trtexec"
    program.write_text(f"#!{sys.executable}\n{(SUPPORT / 'fake_trtexec.py').read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_trtexec_builds_then_times_in_interleaved_rounds(fake_trtexec, capsys):
    out = fake_trtexec / "r.json"
    assert (
        bench_cli.main(
            [
                "float.onnx",
                "--modes",
                "fp16",
                "--engine",
                "rule=qat:qat.onnx",
                "--use-trtexec",
                "--save-engine",
                str(fake_trtexec / "qat"),
                "--json",
                str(out),
                "--rounds",
                "2",
            ]
        )
        == 0
    )
    calls = (fake_trtexec / "calls.txt").read_text().splitlines()
    assert "--buildOnly" in calls[0] and "--onnx=float.onnx" in calls[0] and "--int8" in calls[1]
    plans = [call.split()[0].rsplit("/", 1)[1] for call in calls[2:]]
    assert plans == ["fp16.plan", "rule.plan", "rule.plan", "fp16.plan"]
    report = json.loads(out.read_text())
    assert report["batch"] == 16 and report["gpu"] == "Orin" and report["versions"] == {"trtexec": "8.5.2"}
    assert report["engines"][0]["latency_ms"]["median"] == 5 and report["engines"][0]["rounds"][0]["p99_ms"] == 70


def test_trtexec_errors(fake_trtexec, monkeypatch):
    with pytest.raises(UserError, match="--opt-level"):  # refused before trtexec would
        bench_cli.main(["float.onnx", "--use-trtexec", "--opt-level", "3"])
    with pytest.raises(UserError, match=r"Unknown option: new in 8\.6"):
        trtexec.run_trtexec([str(fake_trtexec / "trtexec"), "--skipInference"])
    with pytest.raises(UserError, match="does not exist"):
        bench_cli.main(["float.onnx", "--modes", "ptq", "--use-trtexec", "--calib-cache", str(fake_trtexec / "none")])
    with pytest.raises(UserError, match="no performance summary"):
        trtexec.parse_performance("Throughput: 5 qps")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(trtexec, "JETPACK_FOLDER", str(fake_trtexec / "none"))
    with pytest.raises(UserError, match="neither on the PATH"):
        bench_cli.main(["float.onnx", "--use-trtexec"])
