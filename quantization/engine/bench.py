"""Benchmark engines: get each plan (built once, then read back), time them interleaved, export their layers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shlex
import tempfile
from typing import Any, Mapping, Sequence

import numpy as np

from quantization.engine import layer_export as layer_times
from quantization.engine import plans, timing, trtexec
from quantization.engine.build import CalibrationBatches, build_engine
from quantization.engine.cuda import Cuda
from quantization.engine.options import BuildOptions, ShapeRange
from quantization.engine.runtime import Engine
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import Version, build_only_flag, import_tensorrt
from quantization.errors import UserError


@dataclasses.dataclass(frozen=True)
class Spec:
    """One engine of a benchmark: to be built from ``onnx`` with ``options``, or loaded from ``plan``.

    Attributes:
        name: in the table and in output file names.
        options: build options; of a loaded engine only batch and shapes are used.
        onnx: model to build from; None for a loaded engine.
        plan: plan file to load, or to build into and reuse; None: build in memory.
        layer_info, profile: JSON files to export to.
    """

    name: str
    options: BuildOptions
    onnx: str | None = None
    plan: str | None = None
    layer_info: str | None = None
    profile: str | None = None

    @property
    def mode(self) -> str:
        return self.options.mode if self.onnx else "loaded"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images of mode ptq: where they come from (part of a plan's key), and the function that loads them."""

    source: str
    count: int
    batches: CalibrationBatches


def trtexec_line(
    spec: Spec,
    options: trtexec.TimingOptions,
    version: Version,
    program: str = "trtexec",
    profile: Mapping[str, ShapeRange] | None = None,
) -> list[str]:
    """The command line that builds (or loads) and times one engine as this tool does, all rounds in one.

    Raises:
        UserError: that version cannot do it.
    """
    command = [program]
    if spec.onnx:
        command += [f"--onnx={spec.onnx}", *trtexec.build_flags(spec.options, version, profile)]
        command += [f"--saveEngine={spec.plan}"] if spec.plan else []
    else:
        command += [f"--loadEngine={spec.plan}", *trtexec.shape_flags(spec.options, None)]
    whole = dataclasses.replace(options, duration=options.duration * options.rounds)
    return command + trtexec.timing_flags(whole, version) + trtexec.export_flags(spec.layer_info, spec.profile)


def plan_key(spec: Spec, tensorrt: str, gpu: str, calibration: Calibration | None) -> dict[str, Any]:
    """What a plan depends on. The cache files are not part of it: plans.load_plan compares the calibration cache."""
    options = dataclasses.asdict(spec.options)
    for cache in ("timing_cache", "calib_cache"):
        del options[cache]
    key = {"onnx_sha256": plans.model_hash(spec.onnx or ""), "options": options, "tensorrt": tensorrt, "gpu": gpu}
    if spec.options.mode == "ptq" and calibration is not None and spec.options.calib_cache is None:
        key["calibration"] = [calibration.source, calibration.count]
    return key


def get_plan(
    spec: Spec,
    cuda: Cuda,
    calibration: Calibration | None,
    timed: trtexec.TimingOptions,
    version: Version,
    timings: TimingCache,
) -> dict[str, Any]:
    """Load a plan, or build it, or reuse the one that was built before.

    Returns:
        ``plan`` (bytes), ``engine_bytes``, and for a built one ``build_seconds``, ``reused``, ``calibration_images``
        and ``trtexec`` (the equivalent line).
    """
    if spec.onnx is None:
        plan = _read(str(spec.plan))
        return {"plan": plan, "engine_bytes": len(plan), "trtexec": shlex.join(trtexec_line(spec, timed, version))}
    key = plan_key(spec, import_tensorrt().__version__, cuda.device_name(), calibration)
    cache = spec.options.calib_cache if spec.options.mode == "ptq" else None
    record = plans.load_plan(spec.plan, key, cache) if spec.plan else None
    if record is not None and spec.plan is not None:
        print(f"{spec.name}: {spec.plan} is up to date, not built again")
        return _describe(spec, _read(spec.plan), record, True, timed, version)

    def announce(profile: Mapping[str, ShapeRange]) -> None:
        line = shlex.join(trtexec_line(spec, timed, version, profile=profile))
        print(f"{spec.name}: building; the same with trtexec:\n  {line}", flush=True)

    built = build_engine(spec.onnx, spec.options, cuda, calibration.batches if calibration else None, announce, timings)
    print(f"{spec.name}: built in {built.seconds:.1f} s, {len(built.plan) / 1e6:.1f} MB", flush=True)
    record = {
        "key": key,
        "build_seconds": built.seconds,
        "calibration_images": built.calibration_images,
        "profile": built.profile,
        "calib_sha256": plans.file_hash(cache) if cache and os.path.isfile(cache) else None,
    }
    if spec.plan:
        plans.save_plan(spec.plan, built.plan, record)
    return _describe(spec, built.plan, record, False, timed, version)


def _describe(
    spec: Spec, plan: bytes, record: Mapping[str, Any], reused: bool, timed: trtexec.TimingOptions, version: Version
) -> dict[str, Any]:
    line = trtexec_line(spec, timed, version, profile=record["profile"])
    return {
        "plan": plan,
        "engine_bytes": len(plan),
        "reused": reused,
        "build_seconds": record["build_seconds"],
        "calibration_images": record["calibration_images"],
        "trtexec": shlex.join(line),
    }


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a plan file") from error


def run(
    specs: Sequence[Spec],
    timed: trtexec.TimingOptions,
    calibration: Calibration | None,
    reference: str,
    version: Version,
    timings: TimingCache,
    build_only: bool = False,
) -> dict[str, Any]:
    """Build and time with TensorRT's Python package; all builds share ``timings``.

    Returns:
        The report that ``--json`` writes: GPU, versions, settings and one record for each engine.

    Raises:
        UserError: a build or run is not possible, or the engines' batches differ.
    """
    cuda = Cuda(spin_wait=timed.spin_wait)
    info = {spec.name: get_plan(spec, cuda, calibration, timed, version, timings) for spec in specs}
    major, minor = cuda.compute_capability()
    report: dict[str, Any] = {
        "gpu": cuda.device_name(),
        "compute_capability": f"{major}.{minor}",
        "versions": dict(
            cuda.versions(),
            tensorrt=import_tensorrt().__version__,
            numpy=np.__version__,
            python=platform.python_version(),
        ),
    }
    plan_bytes = {name: item.pop("plan") for name, item in info.items()}
    results: dict[str, list[timing.Round]] = {}
    if not build_only:
        with contextlib.ExitStack() as stack:
            engines = {}
            for spec in specs:
                engine = stack.enter_context(Engine(plan_bytes.pop(spec.name), cuda, spec.name))
                _bind(engine, spec.options)
                engines[spec.name] = engine
                info[spec.name]["shape"] = list(engine.shape)
            batch = same_batch({name: engine.shape[0] for name, engine in engines.items()})
            results, graphs = timing.time_engines(
                engines, cuda, timed.rounds, timed.duration, timed.warmup, timed.cuda_graph
            )
            report.update(batch=batch, cuda_graph_used=graphs)
            for spec in specs:  # after all timing: profiling makes the GPU run differently
                if spec.layer_info:
                    layer_times.export_layer_info(engines[spec.name], spec.layer_info)
                if spec.profile:
                    layer_times.export_profile(engines[spec.name], cuda, spec.profile)
    return finish(report, specs, timed, info, results, reference)


def _bind(engine: Engine, options: BuildOptions) -> None:
    """Bind the shape to time: --shapes, --batch, else the profile's optimum."""
    shape = (options.shapes or {}).get(engine.input, engine.opt_shape)
    if options.batch is not None:
        shape = (options.batch, *tuple(shape[1:]))
    engine.bind(tuple(shape))


def same_batch(batches: Mapping[str, int]) -> int:
    """The batch size of all engines.

    Raises:
        UserError: they differ, which makes their qps incomparable.
    """
    if len(set(batches.values())) != 1:
        listed = ", ".join(f"{name} {batch}" for name, batch in batches.items())
        raise UserError(
            f"engines of different batch sizes cannot be compared ({listed}): give --batch, or time them "
            "in separate runs"
        )
    return next(iter(batches.values()))


def run_with_trtexec(
    specs: Sequence[Spec],
    timed: trtexec.TimingOptions,
    reference: str,
    version: Version,
    program: str,
    build_only: bool = False,
) -> dict[str, Any]:
    """As :func:`run`, with a trtexec process for each build and for each engine in each round."""
    once = dataclasses.replace(timed, rounds=1)
    with tempfile.TemporaryDirectory() as folder:
        info: dict[str, dict[str, Any]] = {}
        loads: dict[str, list[str]] = {}
        for spec in specs:
            plan = spec.plan or os.path.join(folder, f"{spec.name}.plan")
            if spec.onnx:
                _check_trtexec_calibration(spec)
                command = [
                    program,
                    f"--onnx={spec.onnx}",
                    *trtexec.build_flags(spec.options, version),
                    f"--saveEngine={plan}",
                    build_only_flag(version),
                ]
                print(f"{spec.name}: {shlex.join(command)}", flush=True)
                trtexec.run_trtexec(command)
            info[spec.name] = {
                "engine_bytes": len(_read(plan)),
                "trtexec": shlex.join(trtexec_line(spec, timed, version, program)),
            }
            loaded = dataclasses.replace(spec, onnx=None, plan=plan, layer_info=None, profile=None)
            loads[spec.name] = trtexec_line(loaded, once, version, program)
        report: dict[str, Any] = {"versions": {"trtexec": ".".join(map(str, version))}}
        results: dict[str, list[timing.Round]] = {spec.name: [] for spec in specs}
        outputs: dict[str, str] = {}
        for order in [] if build_only else timing.round_order([spec.name for spec in specs], timed.rounds):
            for name in order:
                outputs[name] = trtexec.run_trtexec(loads[name])
                results[name].append(trtexec.parse_performance(outputs[name]))
                print(f"{name} {results[name][-1].qps:.1f} qps", flush=True)
        if outputs:
            report["batch"] = same_batch({name: trtexec.parse_batch(text) for name, text in outputs.items()})
            report["gpu"] = trtexec.parse_gpu(next(iter(outputs.values())))
            for spec in specs:
                exports = trtexec.export_flags(spec.layer_info, spec.profile)
                if exports:
                    trtexec.run_trtexec(loads[spec.name] + ["--profilingVerbosity=detailed"] + exports)
    return finish(report, specs, timed, info, results, reference)


def _check_trtexec_calibration(spec: Spec) -> None:
    """Trtexec reads a calibration cache, but cannot calibrate with images."""
    cache = spec.options.calib_cache
    if cache and not os.path.isfile(cache):
        raise UserError(
            f"calibration cache {cache} does not exist, and trtexec cannot make it: run once without "
            "--use-trtexec, or drop --calib-cache"
        )
    if spec.mode == "ptq" and not cache:
        print(f"note: {spec.name} gets random scales from trtexec; its speed counts, its output does not")


def finish(
    report: dict[str, Any],
    specs: Sequence[Spec],
    timed: trtexec.TimingOptions,
    info: Mapping[str, Any],
    results: Mapping[str, Sequence[timing.Round]],
    reference: str,
) -> dict[str, Any]:
    """Put settings, build records and figures together, engines in the order they were given."""
    figures = timing.summarize(results, reference, report["batch"]) if results else {}
    engines = [
        {
            "name": spec.name,
            "mode": spec.mode,
            "onnx": spec.onnx,
            "plan": spec.plan,
            "options": dataclasses.asdict(spec.options),
            **info[spec.name],
            **figures.get(spec.name, {}),
        }
        for spec in specs
    ]
    return dict(report, timing=dataclasses.asdict(timed), reference=reference, engines=engines)


def table(report: Mapping[str, Any]) -> str:
    """The report as a table in plain text: medians, and minimum to maximum over the rounds."""
    reference = report["reference"]
    rows = [
        ["engine", "mode", "qps", "(min-max)", "images/s", "latency ms", "(min-max)", f"x {reference}", "MB", "build s"]
    ]
    for engine in report["engines"]:
        cells = [engine["name"], engine["mode"]]
        if "qps" in engine:
            qps, latency = engine["qps"], engine["latency_ms"]
            cells += [
                f"{qps['median']:.1f}",
                f"{qps['min']:.1f}-{qps['max']:.1f}",
                f"{engine['images_per_s']['median']:.0f}",
                f"{latency['median']:.3f}",
                f"{latency['min']:.3f}-{latency['max']:.3f}",
                f"{engine['ratio']['median']:.3f}",
            ]
        else:
            cells += ["-"] * 6
        seconds = engine.get("build_seconds")
        rows.append([*cells, f"{engine['engine_bytes'] / 1000000.0:.1f}", "-" if seconds is None else f"{seconds:.1f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
