"""Where the plan of an engine comes from: loaded, reused from an earlier run, or built now."""

from __future__ import annotations

import dataclasses
import os
import shlex
from typing import Any, Mapping

from quantization.engine import plans
from quantization.engine.build import build_engine
from quantization.engine.cuda import Cuda
from quantization.engine.options import ShapeRange
from quantization.engine.runtime import Engine
from quantization.engine.specs import Calibration, EngineSpec, trtexec_line
from quantization.engine.timing import TimingOptions
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import Version, import_tensorrt
from quantization.errors import UserError
from quantization.onnx_graph.origin import file_origin


def plan_key(spec: EngineSpec, tensorrt: str, gpu: str, calibration: Calibration | None) -> dict[str, Any]:
    """What a plan depends on. The cache files are not part of it: plans.load_plan compares the calibration cache."""
    options = dataclasses.asdict(spec.options)
    for cache in ("timing_cache", "calib_cache"):
        del options[cache]
    key: dict[str, Any] = {
        "onnx_sha256": plans.model_hash(spec.onnx or ""),
        "options": options,
        "tensorrt": tensorrt,
        "gpu": gpu,
    }
    if spec.options.mode == "ptq" and calibration is not None and spec.options.calib_cache is None:
        key["calibration"] = [calibration.source, calibration.count]
    return key


class PlanSource:
    """Gets plans, with TensorRT's Python package.

    Args:
        cuda: CUDA runtime.
        calibration: images for mode ptq.
        timed: how the engine will be timed, for the equivalent trtexec line.
        version: TensorRT's.
        timings: shared by all builds.
    """

    def __init__(
        self, cuda: Cuda, calibration: Calibration | None, timed: TimingOptions, version: Version, timings: TimingCache
    ) -> None:
        self._cuda = cuda
        self._calibration = calibration
        self._timed = timed
        self._version = version
        self._timings = timings

    def get(self, spec: EngineSpec) -> dict[str, Any]:
        """Load a plan, or build it, or reuse the one that was built before.

        Returns:
            ``plan`` (bytes), ``engine_bytes``, and for a built one ``build_seconds``, ``reused``,
            ``calibration_images`` and ``trtexec`` (the equivalent line).

        Raises:
            UserError: it cannot be had.
        """
        if spec.onnx is None:
            plan = read_plan(str(spec.plan))
            return {"plan": plan, "engine_bytes": len(plan), "trtexec": self._line(spec)}
        key = plan_key(spec, import_tensorrt().__version__, self._cuda.device_name(), self._calibration)
        cache = spec.options.calib_cache if spec.options.mode == "ptq" else None
        record = plans.load_plan(spec.plan, key, cache) if spec.plan else None
        if record is not None and spec.plan is not None:
            print(f"{spec.name}: {spec.plan} is up to date, not built again")
            return self._describe(spec, read_plan(spec.plan), record, reused=True)
        plan, record = self._build(spec, spec.onnx)
        origin = file_origin(spec.onnx)
        record = {"key": key, "metadata": {} if origin is None else origin.metadata(), **record}
        record["calib_sha256"] = plans.file_hash(cache) if cache and os.path.isfile(cache) else None
        if spec.plan:
            plans.save_plan(spec.plan, plan, record)
        return self._describe(spec, plan, record, reused=False)

    def rebuild(self, spec: EngineSpec, onnx: str) -> Engine:
        """Build another ONNX with an engine's options, and load it; nothing is kept."""
        batches = self._calibration.batches if self._calibration else None
        built = build_engine(onnx, spec.options, self._cuda, batches, timings=self._timings)
        return Engine(built.plan, self._cuda, spec.name)

    def _build(self, spec: EngineSpec, onnx: str) -> tuple[bytes, dict[str, Any]]:
        def announce(profile: Mapping[str, ShapeRange]) -> None:
            print(f"{spec.name}: building; the same with trtexec:\n  {self._line(spec, profile)}", flush=True)

        batches = self._calibration.batches if self._calibration else None
        built = build_engine(onnx, spec.options, self._cuda, batches, announce, self._timings)
        print(f"{spec.name}: built in {built.seconds:.1f} s, {len(built.plan) / 1e6:.1f} MB", flush=True)
        return built.plan, {
            "build_seconds": built.seconds,
            "calibration_images": built.calibration_images,
            "profile": built.profile,
        }

    def _describe(self, spec: EngineSpec, plan: bytes, record: Mapping[str, Any], reused: bool) -> dict[str, Any]:
        return {
            "plan": plan,
            "engine_bytes": len(plan),
            "reused": reused,
            "build_seconds": record["build_seconds"],
            "calibration_images": record["calibration_images"],
            "trtexec": self._line(spec, record["profile"]),
        }

    def _line(self, spec: EngineSpec, profile: Mapping[str, ShapeRange] | None = None) -> str:
        return shlex.join(trtexec_line(spec, self._timed, self._version, profile=profile))


def read_plan(path: str) -> bytes:
    """The bytes of a plan file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a plan file") from error
