"""Benchmark engines with TensorRT's Python package: get the plans, time them interleaved, export their layers."""

from __future__ import annotations

import contextlib
import functools
import platform
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import numpy as np

from quantization.engine import layer_export, timing
from quantization.engine.bench_report import finish, same_batch
from quantization.engine.cuda import Cuda
from quantization.engine.options import BuildOptions
from quantization.engine.plan_source import PlanSource, failure
from quantization.engine.runtime import Engine
from quantization.engine.specs import BenchReport, Calibration, EngineSpec, check_specs
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import import_tensorrt
from quantization.errors import UserError


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
        The report that ``--json`` writes: GPU, versions, settings and one record for each engine, with the "problem" of
        one that could not be built or loaded.

    Raises:
        UserError: this TensorRT cannot do what is asked, an engine does not take its shape or does not run, or the engines'
            batches differ.
    """
    check_specs(asked, calibration is not None)
    cuda = Cuda(spin_wait=asked.timed.spin_wait)
    source = PlanSource(cuda, calibration, asked.timed, asked.version, timings)
    info = {spec.name: source.attempt(spec) for spec in asked.specs}
    report = machine_facts(cuda)
    results: dict[str, list[timing.Round]] = {}
    with contextlib.ExitStack() as stack:
        engines = _load_engines(asked, info, cuda, stack)
        if engines:
            report["batch"] = same_batch({name: engine.shape[0] for name, engine in engines.items()})
            results, report["cuda_graph_used"] = timing.time_engines(engines, cuda, asked.timed)
            specs = [spec for spec in asked.specs if spec.name in engines]
            _export_layers(specs, engines, cuda)  # after all timing: profiling makes the GPU run differently
            for spec in specs:
                if check is not None and spec.onnx is not None:
                    rebuild = functools.partial(source.rebuild, spec)
                    info[spec.name]["boxes"] = check(engines[spec.name], spec.onnx, rebuild)._asdict()
    return finish(report, asked, info, results)


def _load_engines(
    asked: BenchReport, info: Mapping[str, dict[str, Any]], cuda: Cuda, stack: contextlib.ExitStack
) -> dict[str, Engine]:
    """The engines to be timed, on the GPU with their shapes bound; none if it is only built.

    Args:
        asked: the engines.
        info: of each one; gives its "plan" away, and gets the "shape", or the "problem" of a plan that does not load.
        cuda: CUDA runtime.
        stack: closes them.

    Raises:
        UserError: an engine does not take the shape that was asked for.
    """
    engines: dict[str, Engine] = {}
    for spec in asked.specs:
        plan = info[spec.name].pop("plan", None)
        if plan is None or asked.build_only:
            continue
        try:
            engine = stack.enter_context(Engine(plan, cuda, spec.name))
        except UserError as error:
            info[spec.name].update(failure(spec.name, error))
            continue
        bind_shape(engine, spec.options)
        engines[spec.name] = engine
        info[spec.name]["shape"] = list(engine.shape)
    return engines


def machine_facts(cuda: Cuda) -> dict[str, Any]:
    """GPU and versions."""
    major, minor = cuda.compute_capability()
    versions = dict(cuda.versions(), tensorrt=import_tensorrt().__version__, numpy=np.__version__)
    return {
        "gpu": cuda.device_name(),
        "compute_capability": f"{major}.{minor}",
        "versions": dict(versions, python=platform.python_version()),
    }


def _export_layers(specs: Sequence[EngineSpec], engines: Mapping[str, Engine], cuda: Cuda) -> None:
    for spec in specs:
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
