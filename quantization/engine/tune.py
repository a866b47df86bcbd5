"""All variants of a network built, evaluated and timed on this GPU, beside FP16 and implicit PTQ.

What is done is kept: plans in DIR/plans, figures in DIR/tune.json after each engine. A figure counts for the plan that it
was measured with, so that another ONNX, TensorRT or GPU makes it void.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Mapping, Protocol, Sequence

from quantization.engine import timing
from quantization.engine.bench import bind_shape, machine_facts
from quantization.engine.bench_report import same_batch
from quantization.engine.cuda import Cuda
from quantization.engine.plan_source import PlanSource, read_plan
from quantization.engine.runtime import Engine
from quantization.engine.specs import Calibration, EngineSpec
from quantization.engine.timing_cache import TimingCache
from quantization.engine.tune_record import TuneRecord
from quantization.engine.versions import Version
from quantization.errors import UserError
from quantization.signals import SIGNALS

REFERENCE = "fp16"  # the engine that the others are compared with


class AccuracyMeter(Protocol):
    """Measures engines on a data set.

    Attributes:
        key: names the data, their annotations and the thresholds.
    """

    key: str

    def knows_reference(self) -> bool:
        """Whether what the reference found is kept from an earlier run."""

    def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
        """The "map" and "map50", and "points" with "plus_minus": the difference to the reference, if that is known.

        The engine called ``REFERENCE`` becomes the reference.

        Raises:
            UserError: it is no detection network, or one of other classes.
        """


@dataclass(frozen=True)
class TuneRequest:
    """What is tuned.

    Attributes:
        folder: for tune.json.
        specs: the engines, each with a plan file, ``REFERENCE`` first.
        skipped: name and mode of an engine that cannot be built here to the reason.
        timed: how long and how.
        version: TensorRT's.
    """

    folder: str
    specs: Sequence[EngineSpec]
    skipped: Mapping[str, str]
    timed: timing.TimingOptions
    version: Version


def run_tune(
    asked: TuneRequest, calibration: Calibration | None, timings: TimingCache, meter: AccuracyMeter | None
) -> dict[str, Any]:
    """Build, evaluate and time what has not been.

    Args:
        asked: the engines.
        calibration: images for mode ptq.
        timings: timing cache shared by all builds.
        meter: measures their accuracy; None: it is not measured.

    Returns:
        "gpu", "versions", "timing", and "engines": name, mode, and what is known of each: "problem" where it could not be
        built, "unmeasured" where its mAP could not be measured.

    Raises:
        UserError: tune.json is damaged, or engines of different batches are to be compared.
    """
    cuda = Cuda(spin_wait=asked.timed.spin_wait)
    machine = machine_facts(cuda)
    record = TuneRecord.read(asked.folder)
    source = PlanSource(cuda, calibration, asked.timed, asked.version, timings)
    engines: dict[str, dict[str, Any]] = {}
    for spec in asked.specs:
        SIGNALS.check()
        engines[spec.name] = entry = _built(spec, source)
        if "plan_sha256" in entry:
            reference = engines.get(REFERENCE, {}).get("plan_sha256")
            key = {"plan": entry["plan_sha256"], "reference": reference, "machine": machine}
            entry.update(_accuracy(record, spec, key, meter, cuda))
        record.keep_engine(entry)
    engines.update({name: {"name": name, "mode": name, "problem": why} for name, why in asked.skipped.items()})
    _time(asked, engines, record, machine, cuda)
    return {**machine, "timing": dataclasses.asdict(asked.timed), "engines": list(engines.values())}


def _built(spec: EngineSpec, source: PlanSource) -> dict[str, Any]:
    """What is known of an engine once its plan is there, or could not be made."""
    entry: dict[str, Any] = {"name": spec.name, "mode": spec.mode, "onnx": spec.onnx, "plan": spec.plan}
    built = source.attempt(spec)
    if "problem" in built:
        return {**entry, **built}
    entry.update({key: built[key] for key in ("engine_bytes", "build_seconds") if key in built})
    return {**entry, "plan_sha256": hashlib.sha256(built["plan"]).hexdigest()}


def _accuracy(
    record: TuneRecord, spec: EngineSpec, key: dict[str, Any], meter: AccuracyMeter | None, cuda: Cuda
) -> dict[str, Any]:
    """The "accuracy" of an engine, measured unless it is known, with its "key"; "unmeasured" where it cannot be."""
    if meter is not None:
        key = {**key, "data": meter.key}
    known = record.accuracy(spec.name, key)
    if meter is None:
        return {} if known is None else {"accuracy": known}
    if known is not None and (spec.name != REFERENCE or meter.knows_reference()):
        print(f"{spec.name}: mAP@0.5:0.95 {known['map']:.4f} is known, not measured again")
        return {"accuracy": known}
    try:
        with Engine(read_plan(str(spec.plan)), cuda, spec.name) as engine:
            return {"accuracy": {**meter(engine, spec.name), "key": key}}
    except UserError as error:
        print(f"{spec.name}: NOT MEASURED: {error}", flush=True)
        return {"unmeasured": str(error)}


def _time(
    asked: TuneRequest,
    engines: Mapping[str, dict[str, Any]],
    record: TuneRecord,
    machine: Mapping[str, Any],
    cuda: Cuda,
) -> None:
    """Time all engines that were built against each other, unless just these were; puts figures into ``engines``."""
    specs = [
        spec for spec in asked.specs if "plan_sha256" in engines[spec.name] and "problem" not in engines[spec.name]
    ]
    if not specs:
        return
    plans = {spec.name: engines[spec.name]["plan_sha256"] for spec in specs}
    shapes = {spec.name: [spec.options.batch, spec.options.shapes] for spec in specs}
    key = {"plans": plans, "shapes": shapes, "timed": dataclasses.asdict(asked.timed), "machine": machine}
    figures = record.figures(key)
    if figures is None:
        figures = _timed(asked, specs, cuda)
        record.keep_figures(key, figures)
    else:
        print(f"just these engines were timed before, not timed again: delete {record.file} to measure anew")
    for name, found in figures.items():
        engines[name].update(found)


def _timed(asked: TuneRequest, specs: Sequence[EngineSpec], cuda: Cuda) -> dict[str, dict[str, Any]]:
    """The figures of each engine, those of all from the same interleaved rounds."""
    reference = next((spec.name for spec in specs if spec.name == REFERENCE), specs[0].name)
    with contextlib.ExitStack() as stack:
        loaded = {}
        for spec in specs:
            engine = stack.enter_context(Engine(read_plan(str(spec.plan)), cuda, spec.name))
            bind_shape(engine, spec.options)
            loaded[spec.name] = engine
        batch = same_batch({name: engine.shape[0] for name, engine in loaded.items()})
        rounds, _ = timing.time_engines(loaded, cuda, asked.timed)
    return timing.summarize(rounds, reference, batch)
