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
from quantization.engine.plan_source import PlanSource
from quantization.engine.runtime import Engine
from quantization.engine.specs import BenchReport, Calibration, EngineSpec, check_specs
from quantization.engine.survivors import Survivors
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import import_tensorrt


class EngineBoxes(NamedTuple):
    """What a comparison of an engine's boxes with its ONNX's found.

    Attributes:
        text: for the user.
        are_wrong: far from what the ONNX gives.
        are_judged: whether that could be told: False where nothing was compared, or too little.
    """

    text: str
    are_wrong: bool
    are_judged: bool


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
        one that could not be built, loaded or run; "ended_by": the one after which nothing more could run.

    Raises:
        UserError: this TensorRT cannot do what is asked, or the engines' batches differ.
    """
    check_specs(asked, calibration is not None)
    cuda = Cuda(spin_wait=asked.timed.spin_wait)
    report, survivors = machine_facts(cuda), Survivors(cuda.is_lost)
    source = PlanSource(cuda, calibration, asked.timed, asked.version, timings)
    info = {spec.name: survivors.attempt(spec.name, functools.partial(source.get, spec)) or {} for spec in asked.specs}
    results: dict[str, list[timing.Round]] = {}
    with contextlib.ExitStack() as stack:
        engines = _load_engines(asked, info, cuda, stack, survivors)
        if engines:
            report["batch"] = same_batch({name: engine.shape[0] for name, engine in engines.items()})
            results, report["cuda_graph_used"] = timing.time_engines(engines, cuda, asked.timed, survivors)
            specs = [spec for spec in asked.specs if spec.name in results]
            for spec in specs:  # after all timing: profiling makes the GPU run differently
                survivors.attempt(spec.name, functools.partial(_export_layers, spec, engines[spec.name], cuda))
            for spec in specs:
                if check is not None and spec.onnx is not None:
                    rebuild = functools.partial(source.rebuild, spec)
                    work = functools.partial(check, engines[spec.name], spec.onnx, rebuild)
                    boxes = survivors.attempt(spec.name, work)
                    info[spec.name].update({} if boxes is None else {"boxes": boxes._asdict()})
    return finish(report, asked, info, results, survivors)


def _load_engines(
    asked: BenchReport,
    info: Mapping[str, dict[str, Any]],
    cuda: Cuda,
    stack: contextlib.ExitStack,
    survivors: Survivors,
) -> dict[str, Engine]:
    """The engines to be timed, on the GPU with their shapes bound; none if it is only built.

    Args:
        asked: the engines.
        info: of each one; gives its "plan" away, and gets the "shape".
        cuda: CUDA runtime.
        stack: closes them.
        survivors: keeps why others do not load.
    """
    engines: dict[str, Engine] = {}
    for spec in asked.specs:
        plan = info[spec.name].pop("plan", None)
        if plan is None or asked.build_only:
            continue
        engine = survivors.attempt(spec.name, functools.partial(bound_engine, plan, spec, cuda))
        if engine is not None:
            engines[spec.name] = stack.enter_context(engine)
            info[spec.name]["shape"] = list(engine.shape)
    return engines


def bound_engine(plan: bytes, spec: EngineSpec, cuda: Cuda) -> Engine:
    """An engine with the shape to time: --shapes, --batch, else the profile's optimum.

    Raises:
        UserError: it does not load, or does not take that shape.
    """
    engine = Engine(plan, cuda, spec.name)
    shape = (spec.options.shapes or {}).get(engine.input, engine.opt_shape)
    if spec.options.batch is not None:
        shape = (spec.options.batch, *tuple(shape[1:]))
    try:
        engine.bind(tuple(shape))
    except BaseException:
        engine.close()  # the others need the memory
        raise
    return engine


def machine_facts(cuda: Cuda) -> dict[str, Any]:
    """GPU and versions."""
    major, minor = cuda.compute_capability()
    versions = dict(cuda.versions(), tensorrt=import_tensorrt().__version__, numpy=np.__version__)
    return {
        "gpu": cuda.device_name(),
        "compute_capability": f"{major}.{minor}",
        "versions": dict(versions, python=platform.python_version()),
    }


def _export_layers(spec: EngineSpec, engine: Engine, cuda: Cuda) -> None:
    if spec.layer_info:
        layer_export.export_layer_info(engine, spec.layer_info)
    if spec.profile:
        layer_export.export_profile(engine, cuda, spec.profile)
