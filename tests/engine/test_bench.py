"""A benchmark from the command line to table and JSON, on the stand-ins for CUDA and TensorRT."""

from __future__ import annotations

import json
import re
import shlex
import types

import numpy as np
import onnx
import pytest

from quantization.engine import bench
from quantization.engine import cli as bench_cli
from quantization.engine.bench_report import same_batch
from quantization.engine.plans import plan_origin
from quantization.errors import UserError
from quantization.onnx_graph.origin import Origin, write_origin
from support.fake_tensorrt import Builder, CudaEngine, fake_cuda_fixture, fake_trt_fixture, lose_cuda  # noqa: F401
from support.small_net import small_net


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
    header = next(line for line in printed if "images/s" in line)
    row = next(line for line in printed if line.startswith("rule "))
    assert f"{rule['qps']['median']:.1f}" in row and len(row) == len(header)


def closing_of(tmp_path, *words):
    plan = str(tmp_path / "plans")
    args = bench_cli.parser().parse_args([str(tmp_path / "net.onnx"), "--modes", "qat", "--save-engine", plan, *words])
    (line,) = bench_cli.closing_of(bench_cli.make_specs(args), args).following
    return shlex.split(line)[3:]


def test_the_next_line_names_what_is_known(tmp_path):
    """The data where an option names it, the IoU where the ONNX tells its upstream; else what nobody takes for a file."""
    file = small_net(tmp_path / "net.onnx", 1)
    assert closing_of(tmp_path) == ["--data", "YOUR_DATA.yaml"]
    assert closing_of(tmp_path, "--check-images", "folder") == ["--data", "YOUR_DATA.yaml"]
    assert closing_of(tmp_path, "--calib-images", "my data.yaml") == ["--data", "my data.yaml"]
    model = onnx.load(file)
    write_origin(model, Origin("yolov5", 0.6))
    onnx.save(model, file)
    assert closing_of(tmp_path, "--check-images", "a.yml") == ["--data", "a.yml", "--nmsthres", "0.6"]


def test_a_plan_keeps_the_origin_of_its_onnx(fake_cuda, fake_trt, tmp_path):
    fake_cuda()
    fake_trt(high=(8, 3, 4, 4))
    model = onnx.load(small_net(tmp_path / "net.onnx", 1))
    write_origin(model, Origin("yolov7", 0.65))
    onnx.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", np.zeros((2, 3, 4, 4), np.uint8))
    words = ["--modes", "ptq", "--save-engine", tmp_path, "--calib-images", tmp_path / "calib.npy", "--build-only"]
    assert bench_cli.main([str(word) for word in (tmp_path / "net.onnx", *words)]) == 0
    assert plan_origin(str(tmp_path / "ptq.plan")) == Origin("yolov7", 0.65)


def failing_run(tmp_path, *more):
    """Two networks of which one cannot be parsed, a plan that does not load, and one that does; the code and the report."""
    (tmp_path / "empty.onnx").write_bytes(b"")
    small_net(tmp_path / "good.onnx", "batch", quantized=True, side=4)
    (tmp_path / "bad.plan").write_bytes(b"bad")
    (tmp_path / "old.plan").write_bytes(b"old")
    engines = ("--engine", f"peer=qat:{tmp_path}/empty.onnx", "--engine", f"rule=qat:{tmp_path}/good.onnx")
    loaded = ("--load-engine", f"{tmp_path}/bad.plan", "--load-engine", f"{tmp_path}/old.plan")
    timed = ("--rounds", "2", "--duration", "0.02", "--warmup", "0.01")
    out = tmp_path / "report.json"
    code = bench_cli.main([*engines, *loaded, *timed, "--json", str(out), "--save-engine", f"{tmp_path}/plans", *more])
    return code, json.loads(out.read_text())


def test_engines_that_fail_are_rows_and_the_others_go_on(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    fake_trt(low=(2, 3, 4, 4), opt=(2, 3, 4, 4), high=(2, 3, 4, 4))
    code, report = failing_run(tmp_path, "--batch", "2")
    assert code == 1
    problems = {engine["name"]: engine.get("problem", "") for engine in report["engines"]}
    assert list(problems) == ["peer", "rule", "bad", "old"]
    assert "empty.onnx cannot be parsed by TensorRT 8.6.0: no opset at node 7" in problems["peer"]
    assert "cannot load this plan" in problems["bad"] and not problems["rule"] and not problems["old"]
    assert {engine["name"] for engine in report["engines"] if "qps" in engine} == {"rule", "old"}
    # the reference would have been the first engine
    assert report["reference"] == "rule" and report["failed_reference"] == "peer"
    assert report["engines"][1]["ratio"]["median"] == 1
    printed = capsys.readouterr().out
    table = printed[printed.index("Fake GPU") :]
    assert re.search(r"^peer +qat +failed +- ", table, re.MULTILINE)
    assert re.search(r"^bad +loaded +failed +- ", table, re.MULTILINE)
    assert re.search(r"^peer: .*cannot be parsed", table, re.MULTILINE)
    assert "peer, the reference, failed: ratios are to rule" in table
    assert "peer-b2.plan" not in table and "rule-b2.plan" in table


def test_another_reference_stays_and_building_alone_goes_on_too(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    fake_trt()
    code, report = failing_run(tmp_path, "--reference", "old")
    assert code == 1 and report["reference"] == "old" and "failed_reference" not in report
    module = fake_trt()
    code = bench_cli.main(
        [
            *("--engine", f"peer=qat:{tmp_path}/empty.onnx", "--engine", f"new=qat:{tmp_path}/good.onnx"),
            *("--build-only", "--save-engine", f"{tmp_path}/plans"),
        ]
    )
    assert code == 1 and module.builds == 1 and (tmp_path / "plans" / "new.plan").is_file()


def test_nothing_is_timed_where_every_engine_fails(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    fake_trt()
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert bench_cli.main([str(tmp_path / "empty.onnx")]) == 1
    assert re.search(r"^fp16: .*cannot be parsed", capsys.readouterr().out, re.MULTILINE)


def test_what_the_command_line_cannot_have_stays_an_error(fake_trt, tmp_path, monkeypatch):
    """Before the first engine is built."""
    fake_trt()
    monkeypatch.setattr(bench, "Cuda", lambda **_: pytest.fail("too late"))
    small_net(tmp_path / "net.onnx", "batch", side=4)
    with pytest.raises(UserError, match="mode ptq needs images"):
        bench_cli.main([str(tmp_path / "net.onnx"), "--modes", "fp16,ptq"])


def test_engines_of_different_batches_are_not_compared():
    assert same_batch({"a": 16, "b": 16}) == 16
    with pytest.raises(UserError, match="a 1, b 16"):
        same_batch({"a": 1, "b": 16})


def run_with_fault(trt, folder, fault, *more):
    """Three plans of which b has a fault, with layers and boxes asked for; the code, the report, and the last words."""
    trt.faults[b"b"] = fault
    plans = [f"--load-engine={folder}/{name}.plan" for name in "abc"]
    for name in "abc":
        (folder / f"{name}.plan").write_bytes(name.encode())
    timed = ("--rounds", "2", "--duration", "0.02", "--warmup", "0.01", "--no-cuda-graph")
    out = folder / "report.json"
    code = bench_cli.main([*plans, *timed, "--json", str(out), *more])
    return code, json.loads(out.read_text())


def test_an_engine_that_fails_while_it_runs_is_a_row(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    exports = ("--export-profile", str(tmp_path / "{name}.json"), "--reference", "b")
    code, report = run_with_fault(fake_trt(), tmp_path, lambda runs: runs == 30, *exports)
    assert code == 1 and "ended_by" not in report
    assert {engine["name"] for engine in report["engines"] if "qps" in engine} == {"a", "c"}
    assert report["reference"] == "a" and report["failed_reference"] == "b"
    table = capsys.readouterr().out.split("Fake GPU")[1]
    assert re.search(r"^b +loaded +failed +- ", table, re.MULTILINE)
    assert re.search(r"^b: execution failed", table, re.MULTILINE)
    assert (tmp_path / "c.json").is_file() and not (tmp_path / "b.json").exists()


def test_layers_that_cannot_be_exported_leave_the_figures(fake_cuda, fake_trt, tmp_path, capsys):
    fake_cuda()
    exports = ("--export-profile", str(tmp_path / "{name}.json"), "--reference", "b")
    code, report = run_with_fault(fake_trt(), tmp_path, lambda runs: runs == 60, *exports)  # 51 runs are timed
    assert code == 1 and report["reference"] == "b" and "failed_reference" not in report
    _, wrong, other = report["engines"]
    assert "execution failed" in wrong["problem"] and wrong["ratio"]["median"] == 1 and "problem" not in other
    last = capsys.readouterr().out.split("Wrote")[1]
    assert "c.json" in last and "b.json" not in last


@pytest.mark.parametrize("at, timed", [(0, []), (30, ["a", "c"]), (60, ["a", "b", "c"])])
def test_after_the_error_that_ends_cuda_the_report_is_written(fake_cuda, fake_trt, tmp_path, capsys, at, timed):
    fake_cuda()

    def fault(runs):
        if runs == at:
            lose_cuda()
        return False

    exports = ("--export-profile", str(tmp_path / "{name}.json"))
    code, report = run_with_fault(fake_trt(), tmp_path, fault, *exports)
    assert code == 1 and report["ended_by"] == "b"
    engines = {engine["name"]: engine for engine in report["engines"]}
    assert [name for name in engines if "qps" in engines[name]] == timed
    assert all(len(engines[name]["rounds"]) == (1 if at < 50 else 2) for name in timed)
    assert "cudaErrorIllegalAddress" in engines["b"]["problem"]
    assert "b ended CUDA" in engines["c"]["problem"]
    printed = capsys.readouterr().out
    assert "CUDA works in a new process only" in printed and "run the others again without b" in printed
    assert "c.json" not in printed.split("Fake GPU")[1]


def test_a_build_that_ends_cuda_ends_the_builds(fake_cuda, fake_trt, tmp_path, monkeypatch, capsys):
    fake_cuda()
    module = fake_trt()

    def build(self, network, config):
        lose_cuda()

    monkeypatch.setattr(Builder, "build_serialized_network", build)
    small_net(tmp_path / "net.onnx", "batch", side=4)
    (tmp_path / "old.plan").write_bytes(b"old")
    assert bench_cli.main([str(tmp_path / "net.onnx"), f"--load-engine={tmp_path}/old.plan"]) == 1
    printed = capsys.readouterr().out
    assert "could not build the engine" in printed and "old: not run, since fp16 ended CUDA" in printed
    assert module.builds == 0


def test_an_engine_that_does_not_take_the_shape_leaves_the_others(fake_cuda, fake_trt, tmp_path, monkeypatch):
    fake_cuda()
    module = fake_trt(high=(4, 3, 4, 4))
    static = CudaEngine(((1, 3, 4, 4),) * 3, False)
    load = module.Runtime(None).deserialize_cuda_engine
    loader = types.SimpleNamespace(deserialize_cuda_engine=lambda plan: static if plan == b"b" else load(plan))
    monkeypatch.setattr(module, "Runtime", lambda log: loader)
    code, report = run_with_fault(module, tmp_path, None, "--batch", "4")
    assert code == 1 and [engine["name"] for engine in report["engines"] if "qps" in engine] == ["a", "c"]
    assert "takes (1, 3, 4, 4) to (1, 3, 4, 4), not (4, 3, 4, 4)" in report["engines"][1]["problem"]
