"""Benchmark engines with trtexec, where TensorRT's Python package is missing: a process for each build and each slice."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
from typing import Any

from quantization.engine import timing, trtexec
from quantization.engine.bench_report import finish, same_batch
from quantization.engine.options import check_options
from quantization.engine.plan_source import failure, read_plan
from quantization.engine.specs import BenchReport, EngineSpec, trtexec_line
from quantization.engine.versions import Version, build_only_flag
from quantization.errors import UserError


def run_trtexec_bench(asked: BenchReport, program: str) -> dict[str, Any]:
    """As ``bench.run``, with ``program`` for each build and for each engine in each round."""
    once = dataclasses.replace(asked.timed, rounds=1)
    report: dict[str, Any] = {"versions": {"trtexec": ".".join(map(str, asked.version))}}
    info: dict[str, dict[str, Any]] = {}
    loads: dict[str, list[str]] = {}
    for spec in asked.specs:
        _check(spec, asked.version)
    with tempfile.TemporaryDirectory() as folder:
        for spec in asked.specs:
            plan = spec.plan or os.path.join(folder, f"{spec.name}.plan")
            line = shlex.join(trtexec_line(spec, asked.timed, asked.version, program))
            try:
                if spec.onnx:
                    _build(asked, spec, plan, program)
                info[spec.name] = {"engine_bytes": len(read_plan(plan)), "trtexec": line}
            except UserError as error:
                info[spec.name] = failure(spec.name, error)
                continue
            loaded = dataclasses.replace(spec, onnx=None, plan=plan, layer_info=None, profile=None)
            loads[spec.name] = trtexec_line(loaded, once, asked.version, program)
        results = {} if asked.build_only or not loads else _time(asked, loads, report)
    return finish(report, asked, info, results)


def _build(asked: BenchReport, spec: EngineSpec, plan: str, program: str) -> None:
    flags = trtexec.build_flags(spec.options, asked.version)
    command = [program, f"--onnx={spec.onnx}", *flags, f"--saveEngine={plan}", build_only_flag(asked.version)]
    print(f"{spec.name}: {shlex.join(command)}", flush=True)
    trtexec.run_trtexec(command)


def _time(asked: BenchReport, loads: dict[str, list[str]], report: dict[str, Any]) -> dict[str, list[timing.Round]]:
    """Time in interleaved rounds, then export layers; ``report`` gets the batch size and the GPU."""
    results: dict[str, list[timing.Round]] = {name: [] for name in loads}
    outputs: dict[str, str] = {}
    for order in timing.round_order(list(loads), asked.timed.rounds):
        for name in order:
            outputs[name] = trtexec.run_trtexec(loads[name])
            results[name].append(trtexec.parse_performance(outputs[name]))
            print(f"{name} {results[name][-1].qps:.1f} qps", flush=True)
    report["batch"] = same_batch({name: trtexec.parse_batch(text) for name, text in outputs.items()})
    report["gpu"] = trtexec.parse_gpu(next(iter(outputs.values())))
    for spec in asked.specs:
        if spec.name not in loads:
            continue
        exports = trtexec.export_flags(spec.layer_info, spec.profile)
        if exports:
            trtexec.run_trtexec([*loads[spec.name], "--profilingVerbosity=detailed", *exports])
    return results


def _check(spec: EngineSpec, version: Version) -> None:
    """Refuse what trtexec cannot do: it reads a calibration cache, but cannot calibrate with images."""
    cache = spec.options.calib_cache
    if cache and not os.path.isfile(cache):
        raise UserError(
            f"calibration cache {cache} does not exist, and trtexec cannot make it: run once without "
            "--use-trtexec, or drop --calib-cache"
        )
    if spec.onnx is not None:
        check_options(spec.options, version)
    if spec.mode == "ptq" and not cache:
        print(f"note: {spec.name} gets random scales from trtexec; its speed counts, its output does not")
