"""What a benchmark is asked for: engines, calibration images, how to time them; and trtexec's command line for it."""

from __future__ import annotations

import dataclasses
import os
from typing import Mapping, Sequence

from quantization.engine import trtexec
from quantization.engine.build import CalibrationBatches
from quantization.engine.calibrator import refuse_no_images
from quantization.engine.options import BuildOptions, ShapeRange, check_options
from quantization.engine.timing import TimingOptions
from quantization.engine.versions import Version


@dataclasses.dataclass(frozen=True)
class EngineSpec:
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
        """For the table: "loaded" where nothing is built."""
        return self.options.mode if self.onnx else "loaded"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images of mode ptq: where they come from (part of a plan's key), and the function that loads them."""

    source: str
    count: int
    batches: CalibrationBatches


@dataclasses.dataclass(frozen=True)
class BenchReport:
    """Engines to be timed against each other.

    Attributes:
        specs: the engines.
        timed: how long and how.
        reference: name of the engine that ratios are taken to.
        version: of the TensorRT, or trtexec, that runs them.
        build_only: time nothing.
    """

    specs: Sequence[EngineSpec]
    timed: TimingOptions
    reference: str
    version: Version
    build_only: bool = False


def check_specs(asked: BenchReport, has_images: bool) -> None:
    """Check what does not need the models themselves, before the first engine is built.

    Args:
        asked: the engines.
        has_images: whether there are images for mode ptq.

    Raises:
        UserError: this version cannot do it, or there is nothing to calibrate with.
    """
    for spec in asked.specs:
        has_plan = os.path.isfile(spec.plan or "")  # it may be up to date, which needs no images
        check_spec(spec, asked.version, has_images or has_plan)


def check_spec(spec: EngineSpec, version: Version, has_images: bool) -> None:
    """Check what does not need the model itself; see ``check_specs``.

    Raises:
        UserError: this version cannot build it, or there is nothing to calibrate with.
    """
    if spec.onnx is not None:
        check_options(spec.options, version)
        if spec.mode == "ptq":
            refuse_no_images(has_images, spec.options.calib_cache)


def trtexec_line(
    spec: EngineSpec,
    timed: TimingOptions,
    version: Version,
    program: str = "trtexec",
    profile: Mapping[str, ShapeRange] | None = None,
) -> list[str]:
    """The command line that builds (or loads) and times one engine as this tool does, all rounds in one.

    Args:
        spec: the engine.
        timed: how this tool times it.
        version: of the trtexec that is to run.
        program: its path.
        profile: resolved shapes of the dynamic inputs; None: those of the options as they were given.

    Raises:
        UserError: that version cannot do it.
    """
    command = [program]
    if spec.onnx:
        command += [f"--onnx={spec.onnx}", *trtexec.build_flags(spec.options, version, profile)]
        command += [f"--saveEngine={spec.plan}"] if spec.plan else []
    else:
        command += [f"--loadEngine={spec.plan}", *trtexec.shape_flags(spec.options, None)]
    whole = dataclasses.replace(timed, duration=timed.duration * timed.rounds)
    return command + trtexec.timing_flags(whole, version) + trtexec.export_flags(spec.layer_info, spec.profile)
