"""Benchmark engines with TensorRT's Python package: get the plans, time them interleaved, export their layers."""

from __future__ import annotations

import contextlib
import functools
import platform
from typing import Any, Callable, Mapping, NamedTuple

import numpy as np

from quantization.engine import layer_export, timing
from quantization.engine.bench_report import finish, same_batch
from quantization.engine.cuda import Cuda
from quantization.engine.options import BuildOptions
from quantization.engine.plan_source import PlanSource
from quantization.engine.runtime import Engine
from quantization.engine.specs import BenchReport, Calibration, check_specs
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import import_tensorrt


class EngineBoxes(NamedTuple):
    """What a comparison of an engine's boxes with its ONNX's found.

    Attributes:
        text: for the user.
        are_wrong: far from what the ONNX gives.
    """

    text: str
    are_wrong: bool


Rebuild = Callable[[str], Engine]  # another ONNX, with the same options
Check = Callable[[Engine, str, Rebuild], EngineBoxes]  # of an engine and the ONNX that it was built from


def run_bench(
    asked: BenchReport, calibration: Calibration | None, timings: TimingCache, check: Check | None = None
) -> dict[str, Any]:
    """Build and time.

    Args:
        asked: the engines, and how to time them.
        calibration: images for mode ptq.
        timings: timing cache shared by all builds.
        check: compares each engine that has an ONNX with it.

    Returns:
        The report that ``--json`` writes: GPU, versions, settings and one record for each engine.

    Raises:
        UserError: a build or run is not possible, or the engines' batches differ.
    """
    check_specs(asked, calibration is not None)
    cuda = Cuda(spin_wait=asked.timed.spin_wait)
    source = PlanSource(cuda, calibration, asked.timed, asked.version, timings)
    info = {spec.name: source.get(spec) for spec in asked.specs}
    report = machine_facts(cuda)
    plans = {name: item.pop("plan") for name, item in info.items()}
    results: dict[str, list[timing.Round]] = {}
    if not asked.build_only:
        with contextlib.ExitStack() as stack:
            engines = {}
            for spec in asked.specs:
                engine = stack.enter_context(Engine(plans.pop(spec.name), cuda, spec.name))
                bind_shape(engine, spec.options)
                engines[spec.name] = engine
                info[spec.name]["shape"] = list(engine.shape)
            report["batch"] = same_batch({name: engine.shape[0] for name, engine in engines.items()})
            results, report["cuda_graph_used"] = timing.time_engines(engines, cuda, asked.timed)
            _export_layers(asked, engines, cuda)  # after all timing: profiling makes the GPU run differently
            for spec in asked.specs:
                if check is not None and spec.onnx is not None:
                    rebuild = functools.partial(source.rebuild, spec)
                    info[spec.name]["boxes"] = check(engines[spec.name], spec.onnx, rebuild)._asdict()
    return finish(report, asked, info, results)


def machine_facts(cuda: Cuda) -> dict[str, Any]:
    """GPU and versions."""
    major, minor = cuda.compute_capability()
    versions = dict(cuda.versions(), tensorrt=import_tensorrt().__version__, numpy=np.__version__)
    return {
        "gpu": cuda.device_name(),
        "compute_capability": f"{major}.{minor}",
        "versions": dict(versions, python=platform.python_version()),
    }


def _export_layers(asked: BenchReport, engines: Mapping[str, Engine], cuda: Cuda) -> None:
    for spec in asked.specs:
        if spec.layer_info:
            layer_export.export_layer_info(engines[spec.name], spec.layer_info)
        if spec.profile:
            layer_export.export_profile(engines[spec.name], cuda, spec.profile)


def bind_shape(engine: Engine, options: BuildOptions) -> None:
    """Bind the shape to time: --shapes, --batch, else the profile's optimum."""
    shape = (options.shapes or {}).get(engine.input, engine.opt_shape)
    if options.batch is not None:
        shape = (options.batch, *tuple(shape[1:]))
    engine.bind(tuple(shape))
