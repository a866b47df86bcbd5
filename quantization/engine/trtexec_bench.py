"""Benchmark engines with trtexec, where TensorRT's Python package is missing: a process for each build and each slice."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import tempfile
from typing import Any

from quantization.engine import timing, trtexec
from quantization.engine.bench_report import finish, same_batch
from quantization.engine.options import check_options
from quantization.engine.plan_source import read_plan
from quantization.engine.specs import BenchReport, EngineSpec, trtexec_line
from quantization.engine.survivors import Survivors
from quantization.engine.versions import Version, build_only_flag
from quantization.errors import UserError


def run_trtexec_bench(asked: BenchReport, program: str) -> dict[str, Any]:
    """As ``bench.run_bench``, with ``program`` for each build and for each engine in each round."""
    once = dataclasses.replace(asked.timed, rounds=1)
    report: dict[str, Any] = {"versions": {"trtexec": ".".join(map(str, asked.version))}}
    info: dict[str, dict[str, Any]] = {}
    loads: dict[str, list[str]] = {}
    survivors = Survivors()  # each run is a process of its own, which ends nothing for the others
    for spec in asked.specs:
        _check(spec, asked.version)
    with tempfile.TemporaryDirectory() as folder:
        for spec in asked.specs:
            plan = spec.plan or os.path.join(folder, f"{spec.name}.plan")
            line = shlex.join(trtexec_line(spec, asked.timed, asked.version, program))
            size = survivors.attempt(spec.name, functools.partial(_build, asked, spec, plan, program))
            info[spec.name] = {} if size is None else {"engine_bytes": size, "trtexec": line}
            if size is not None:
                loaded = dataclasses.replace(spec, onnx=None, plan=plan, layer_info=None, profile=None)
                loads[spec.name] = trtexec_line(loaded, once, asked.version, program)
        results = {} if asked.build_only or not loads else _time(asked, loads, report, survivors)
    return finish(report, asked, info, results, survivors)


def _build(asked: BenchReport, spec: EngineSpec, plan: str, program: str) -> int:
    """Make the plan, unless it is there to be loaded; its size in bytes."""
    if spec.onnx:
        flags = trtexec.build_flags(spec.options, asked.version)
        command = [program, f"--onnx={spec.onnx}", *flags, f"--saveEngine={plan}", build_only_flag(asked.version)]
        print(f"{spec.name}: {shlex.join(command)}", flush=True)
        trtexec.run_trtexec(command)
    return len(read_plan(plan))


def _time(
    asked: BenchReport, loads: dict[str, list[str]], report: dict[str, Any], survivors: Survivors
) -> dict[str, list[timing.Round]]:
    """Time in interleaved rounds, then export layers; ``report`` gets the batch size and the GPU."""
    results: dict[str, list[timing.Round]] = {name: [] for name in loads}
    outputs: dict[str, str] = {}
    for order in timing.round_order(list(loads), asked.timed.rounds):
        for name in filter(survivors.runs, order):
            found = survivors.attempt(name, functools.partial(_time_round, loads[name]))
            if found is not None:
                outputs[name], measured = found
                results[name].append(measured)
                print(f"{name} {measured.qps:.1f} qps", flush=True)
    timed = timing.complete_rounds(results, survivors)
    if timed:
        report["batch"] = same_batch({name: trtexec.parse_batch(outputs[name]) for name in timed})
        report["gpu"] = trtexec.parse_gpu(outputs[next(iter(timed))])
    for spec in asked.specs:
        exports = trtexec.export_flags(spec.layer_info, spec.profile)
        if spec.name in timed and exports:
            command = [*loads[spec.name], "--profilingVerbosity=detailed", *exports]
            survivors.attempt(spec.name, functools.partial(trtexec.run_trtexec, command))
    return timed


def _time_round(command: list[str]) -> tuple[str, timing.Round]:
    """What trtexec prints, and the figures in it."""
    output = trtexec.run_trtexec(command)
    return output, trtexec.parse_performance(output)


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
