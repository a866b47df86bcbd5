"""All variants of a network built, evaluated and timed on this GPU, beside FP16 and implicit PTQ.

What is done is kept: plans in DIR/plans, figures in DIR/tune.json after each engine. A figure counts for the plan that it
was measured with, so that another ONNX, TensorRT or GPU makes it void.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Mapping, Protocol, Sequence

from quantization.engine import timing
from quantization.engine.bench import bound_engine, machine_facts
from quantization.engine.bench_report import same_batch
from quantization.engine.cuda import Cuda
from quantization.engine.plan_source import PlanSource, read_plan
from quantization.engine.plans import model_hash
from quantization.engine.runtime import Engine
from quantization.engine.specs import Calibration, EngineSpec
from quantization.engine.survivors import Survivors
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
        built or run, "unmeasured" where its mAP could not be measured; "ended_by": the engine after which nothing more
        could run.

    Raises:
        UserError: tune.json is damaged, or engines of different batches are to be compared.
    """
    cuda = Cuda(spin_wait=asked.timed.spin_wait)
    source = PlanSource(cuda, calibration, asked.timed, asked.version, timings)
    run = _Run(asked, cuda, TuneRecord.read(asked.folder), machine_facts(cuda))
    for spec in asked.specs:
        SIGNALS.check()
        run.build_and_measure(spec, source, meter)
    run.time_all()
    return run.report()


class _Run:
    """A tuning run.

    Attributes:
        engines: name to what is known of an engine.
    """

    def __init__(self, asked: TuneRequest, cuda: Cuda, record: TuneRecord, machine: Mapping[str, Any]) -> None:
        self._asked, self._cuda, self._record, self._machine = asked, cuda, record, machine
        self._survivors = Survivors(cuda.is_lost)
        self.engines: dict[str, dict[str, Any]] = {}

    def build_and_measure(self, spec: EngineSpec, source: PlanSource, meter: AccuracyMeter | None) -> None:
        """Keep what is known of an engine once its plan is there, or could not be made."""
        self.engines[spec.name] = entry = {"name": spec.name, "mode": spec.mode, "onnx": spec.onnx, "plan": spec.plan}
        if not self._survivors.runs(spec.name):
            self._survivors.leave_out(spec.name)
            return  # what the record knows of it stays
        ended = self._record.ending(spec.name, self._ending_key(spec))
        if ended is not None:
            self._survivors.problems[spec.name] = (
                f"left out, it ended CUDA in an earlier run ({ended}): delete {self._record.file} to try it again"
            )
            return
        built = self._survivors.attempt(spec.name, functools.partial(source.get, spec))
        if built is not None:
            entry.update({key: built[key] for key in ("engine_bytes", "build_seconds") if key in built})
            entry["plan_sha256"] = hashlib.sha256(built["plan"]).hexdigest()
            entry.update(self._accuracy(spec, meter))
            self._survivors.look(spec.name, str(entry.get("unmeasured", "")))
        self._keep(spec)

    def _ending_key(self, spec: EngineSpec) -> dict[str, Any]:
        """What else has to be the same for an engine to end CUDA again."""
        file = spec.plan if spec.onnx is None else spec.onnx
        return {"file": model_hash(str(file)), "options": dataclasses.asdict(spec.options), "machine": self._machine}

    def _keep(self, spec: EngineSpec) -> None:
        """Write what is known of an engine into the record."""
        entry, problem = self.engines[spec.name], self._survivors.problems.get(spec.name)
        ended = self._survivors.ended_by == spec.name
        ending = {"ended": {"key": self._ending_key(spec), "why": problem}} if ended else {}
        self._record.keep_engine({**entry, **({} if problem is None else {"problem": problem}), **ending})

    def _accuracy(self, spec: EngineSpec, meter: AccuracyMeter | None) -> dict[str, Any]:
        """The "accuracy" of an engine, measured unless it is known, with its "key"; "unmeasured" where it cannot be."""
        reference = self.engines.get(REFERENCE, {}).get("plan_sha256")
        plan = self.engines[spec.name]["plan_sha256"]
        key: dict[str, Any] = {"plan": plan, "reference": reference, "machine": self._machine}
        if meter is not None:
            key["data"] = meter.key
        known = self._record.accuracy(spec.name, key)
        if meter is None:
            return {} if known is None else {"accuracy": known}
        if known is not None and (spec.name != REFERENCE or meter.knows_reference()):
            print(f"{spec.name}: mAP@0.5:0.95 {known['map']:.4f} is known, not measured again")
            return {"accuracy": known}
        try:
            with Engine(read_plan(str(spec.plan)), self._cuda, spec.name) as engine:
                return {"accuracy": {**meter(engine, spec.name), "key": key}}
        except UserError as error:
            print(f"{spec.name}: NOT MEASURED: {error}", flush=True)
            return {"unmeasured": str(error)}

    def time_all(self) -> None:
        """Time all engines that were built against each other, unless just these were; puts figures into ``engines``."""
        specs = [spec for spec in self._asked.specs if self._survivors.runs(spec.name)]
        if not specs:
            return
        plans = {spec.name: self.engines[spec.name]["plan_sha256"] for spec in specs}
        shapes = {spec.name: [spec.options.batch, spec.options.shapes] for spec in specs}
        timed = dataclasses.asdict(self._asked.timed)
        key = {"plans": plans, "shapes": shapes, "timed": timed, "machine": self._machine}
        figures = self._record.figures(key)
        if figures is None:
            figures = self._timed(specs)
            for spec in specs:
                if spec.name in self._survivors.problems:
                    self._keep(spec)
            self._record.keep_figures(key, figures)
        else:
            print(f"just these engines were timed before, not timed again: delete {self._record.file} to measure anew")
        for name, found in figures.items():
            self.engines[name].update(found)

    def _timed(self, specs: Sequence[EngineSpec]) -> dict[str, dict[str, Any]]:
        """The figures of each engine, those of all from the same interleaved rounds."""
        with contextlib.ExitStack() as stack:
            loaded = {}
            for spec in specs:
                engine = self._survivors.attempt(spec.name, functools.partial(self._load, spec))
                if engine is not None:
                    loaded[spec.name] = stack.enter_context(engine)
            if not loaded:
                return {}
            batch = same_batch({name: engine.shape[0] for name, engine in loaded.items()})
            rounds, _ = timing.time_engines(loaded, self._cuda, self._asked.timed, self._survivors)
        reference = REFERENCE if REFERENCE in rounds else next(iter(rounds), "")
        return timing.summarize(rounds, reference, batch)

    def _load(self, spec: EngineSpec) -> Engine:
        return bound_engine(read_plan(str(spec.plan)), spec, self._cuda)

    def report(self) -> dict[str, Any]:
        """See ``run_tune``."""
        for name, problem in self._survivors.problems.items():
            self.engines[name]["problem"] = problem
        skipped = [{"name": name, "mode": name, "problem": why} for name, why in self._asked.skipped.items()]
        engines = [*self.engines.values(), *skipped]
        ended = {} if self._survivors.ended_by is None else {"ended_by": self._survivors.ended_by}
        return {**self._machine, "timing": dataclasses.asdict(self._asked.timed), **ended, "engines": engines}
