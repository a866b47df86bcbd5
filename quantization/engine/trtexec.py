"""trtexec: the command line that does what a build and its timing do here, right for each version, and running it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Mapping, Sequence

from quantization.engine import versions
from quantization.engine.options import BuildOptions, ShapeRange, check_options, format_shapes
from quantization.engine.timing import Round, TimingOptions
from quantization.errors import UserError

JETPACK_FOLDER = "/usr/src/tensorrt/bin"  # JetPack installs trtexec here, off the PATH


def build_flags(
    options: BuildOptions, version: versions.Version, profile: Mapping[str, ShapeRange] | None = None
) -> list[str]:
    """The flags for a build.

    Args:
        options: checked here.
        version: of the trtexec that is to run.
        profile: resolved shapes of the dynamic inputs; None: those of the options as they were given.

    Raises:
        UserError: this version cannot do it.
    """
    check_options(options, version)
    flags: list[str] = []
    if not options.is_typed(version):
        flags.append("--fp16")
        if options.mode in ("ptq", "qat"):
            flags.append("--int8")
    elif not versions.is_strongly_typed_only(version):
        flags.append("--stronglyTyped")
    if options.mode == "ptq" and options.calib_cache:
        flags.append(f"--calib={options.calib_cache}")
    flags += shape_flags(options, profile)
    if options.workspace is not None:
        flags.append(f"--memPoolSize=workspace:{options.workspace}")
    if options.opt_level is not None:
        flags.append(f"--builderOptimizationLevel={options.opt_level}")
    if options.tactics is not None:
        known = versions.tactic_sources(version)
        signs = [("+" if name in options.tactics else "-") + name for name in known]
        flags.append(f"--tacticSources={','.join(signs)}")
    if not options.tf32:
        flags.append("--noTF32")
    if options.timing_cache:
        flags.append(f"--timingCacheFile={options.timing_cache}")
    return [*flags, "--profilingVerbosity=detailed"]


def shape_flags(options: BuildOptions, profile: Mapping[str, ShapeRange] | None) -> list[str]:
    """The flags for the shapes; ``profile`` as in :func:`build_flags`."""
    if profile is None:
        opt = dict(options.shapes or {})
        low, high = dict(options.min_shapes or opt), dict(options.max_shapes or opt)
    else:
        low, opt, high = ({name: sizes[index] for name, sizes in profile.items()} for index in range(3))
    if not opt:
        return []
    flags = [f"--shapes={format_shapes(opt)}"]
    if low != opt or high != opt:
        flags = [
            f"--minShapes={format_shapes(low)}",
            f"--optShapes={format_shapes(opt)}",
            f"--maxShapes={format_shapes(high)}",
            *flags,
        ]
    return flags


def timing_flags(timing: TimingOptions, version: versions.Version) -> list[str]:
    """The flags for one timed run. From 11.0 a graph, spin wait and no transfers are the default."""
    flags = [f"--warmUp={timing.warmup * 1000:g}", f"--duration={timing.duration:g}"]
    if versions.has_fast_timing_defaults(version):
        flags += [] if timing.cuda_graph else ["--noCudaGraph"]
        return flags + ([] if timing.spin_wait else ["--noSpinWait"])
    flags += ["--useCudaGraph"] if timing.cuda_graph else []
    flags += ["--useSpinWait"] if timing.spin_wait else []
    return [*flags, "--noDataTransfers", "--separateProfileRun"]


def export_flags(layer_info: str | None, profile: str | None) -> list[str]:
    """The flags for the layer and profile JSON files."""
    return ([f"--exportLayerInfo={layer_info}"] if layer_info else []) + (
        [f"--exportProfile={profile}"] if profile else []
    )


def find_trtexec() -> str:
    """Path of trtexec.

    Raises:
        UserError: it is neither on the PATH nor where JetPack puts it.
    """
    path = shutil.which("trtexec") or shutil.which("trtexec", path=JETPACK_FOLDER)
    if path is None:
        raise UserError(
            f"trtexec is neither on the PATH nor in {JETPACK_FOLDER}: drop --use-trtexec to use TensorRT's "
            "Python package"
        )
    return path


def run_trtexec(arguments: Sequence[str]) -> str:
    """Run a command line and give its output.

    Raises:
        UserError: it cannot be run or fails; the message has trtexec's own.
    """
    try:
        done = subprocess.run(list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        raise UserError(f"{arguments[0]} cannot be run ({error.strerror}): check the installation") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        errors = [line.strip() for line in output.splitlines() if "[E]" in line]
        reason = errors[0] if errors else f"exit code {done.returncode}"
        raise UserError(f"{os.path.basename(arguments[0])} failed: {reason}; run it by hand: {' '.join(arguments)}")
    return output


def trtexec_version(path: str) -> versions.Version:
    """Ask trtexec for its version, which it prints first whatever the arguments.

    Raises:
        UserError: it says none.
    """
    output = run_trtexec([path, "--help"])
    match = re.search(r"\[TensorRT v(\d+)\]", output)
    if match is None:
        raise UserError(f"{path} --help names no TensorRT version: check that it is NVIDIA's trtexec")
    return versions.parse_version_number(int(match.group(1)))


def parse_performance(output: str) -> Round:
    """Throughput and median latency of trtexec's performance summary.

    Raises:
        UserError: there is no such summary.
    """
    throughput = re.search(r"Throughput: ([\d.eE+]+) qps", output)
    # "H2D Latency:" and "D2H Latency:" have a word before it
    latency = re.search(r"\] Latency: .*?median = ([\d.eE+-]+) ms(?:.*?percentile\(99%\) = ([\d.eE+-]+) ms)?", output)
    if throughput is None or latency is None:
        raise UserError("trtexec's output has no performance summary: run its command line by hand")
    return Round(
        qps=float(throughput.group(1)),
        latency_ms=float(latency.group(1)),
        p99_ms=float(latency.group(2)) if latency.group(2) else None,
    )


def parse_batch(output: str) -> int:
    """Batch size of the input that trtexec ran.

    Raises:
        UserError: it names no input.
    """
    match = re.search(r"[Ii]nput binding for \S+ with dimensions (\d+)", output)
    if match is None:
        raise UserError("trtexec's output names no input binding: run its command line by hand")
    return int(match.group(1))


def parse_gpu(output: str) -> str:
    """Name of the GPU that trtexec ran on, empty if it names none."""
    match = re.search(r"Selected Device: (.+?)\s*$", output, re.MULTILINE)
    return match.group(1) if match else ""
