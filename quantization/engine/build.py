"""ONNX in, serialized TensorRT engine out: FP16, implicit INT8 (ptq) and explicit INT8 (qat)."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, Callable, Iterable

import numpy as np

from quantization.engine import versions
from quantization.engine.calibrator import CalibrationFeed, entropy_calibrator
from quantization.engine.cuda import Cuda
from quantization.engine.options import BuildOptions, Shape, ShapeRange, check_options, resolve_shapes
from quantization.engine.timing_cache import TimingCache
from quantization.engine.versions import import_tensorrt, logger
from quantization.errors import UserError

# Takes the (B, 3, H, W) that the network is calibrated at, gives float32 batches of it
CalibrationBatches = Callable[[Shape], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished build.

    Attributes:
        plan: serialized engine.
        seconds: time of the build, calibration included.
        profile: min, opt and max shape of each dynamic input.
        calibration_images: images calibrated with; 0 where the cache was used or the mode is not ptq.
    """

    plan: bytes
    seconds: float
    profile: dict[str, ShapeRange]
    calibration_images: int


def build_engine(
    onnx: str,
    options: BuildOptions,
    cuda: Cuda,
    calibration: CalibrationBatches | None = None,
    announce: Callable[[dict[str, ShapeRange]], None] | None = None,
    timings: TimingCache | None = None,
) -> Built:
    """Build an engine.

    Kept long: TensorRT's steps in their order, whose objects must stay alive to the end.
    Many parameters: what to build, and what the builds of one process share.

    Args:
        onnx: path of the model; external weights lie beside it.
        options: what to build.
        cuda: CUDA runtime, made before TensorRT's builder.
        calibration: images for mode ptq; None where the cache file exists.
        announce: called with the resolved shapes before the build starts, to print the trtexec line.
        timings: timing cache shared with other builds; None: ``options.timing_cache``'s, or an empty one.

    Raises:
        UserError: the model does not fit the mode, this TensorRT cannot do it, or the build failed.
    """
    trt = import_tensorrt()
    version = versions.parse_version(trt.__version__)
    check_options(options, version)
    if not os.path.isfile(onnx):
        raise UserError(f"{onnx} does not exist: name an ONNX file")
    typed = options.is_typed(version)
    trt.init_libnvinfer_plugins(logger(), "")  # end-to-end exports carry NMS plugins
    builder = trt.Builder(logger())
    network = builder.create_network(versions.network_flags(trt, typed))
    parser = trt.OnnxParser(network, logger())  # owns the weights until the build is done
    _parse(parser, onnx, trt.__version__)
    check_network(trt, network, options.mode, typed, onnx)
    inputs = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    profile = resolve_shapes(inputs, options, onnx)
    if announce is not None:
        announce(profile)
    config = builder.create_builder_config()
    configure(trt, config, options, typed)
    timings = timings or TimingCache(options.timing_cache)
    timings.attach(config)
    if profile:
        _add_profile(builder, config, profile)
    feed = None
    if options.mode == "ptq":
        feed = _calibration_feed(inputs, profile, calibration, options.calib_cache, onnx)
        if profile:
            _set_calibration_profile(builder, config, profile)
    start = time.perf_counter()
    memory = _build(builder, network, config, entropy_calibrator(feed, cuda) if feed is not None else None)
    seconds = time.perf_counter() - start
    if memory is None:
        raise UserError(
            f"{onnx}: TensorRT {trt.__version__} could not build the engine ({logger().last_error()}): "
            "see its messages above, or run again with --verbose"
        )
    timings.save()
    return Built(bytes(memory), seconds, profile, feed.images if feed else 0)


def _parse(parser: Any, onnx: str, version: str) -> None:
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        reason = " ".join((errors or [logger().last_error()])[0].split())
        raise UserError(f"{onnx} cannot be parsed by TensorRT {version}: {reason}")


def _build(builder: Any, network: Any, config: Any, calibrator: Any) -> Any:
    """The serialized network, None if the build failed; raises what the calibrator's callbacks raised."""
    if calibrator is None:
        return builder.build_serialized_network(network, config)
    config.int8_calibrator = calibrator
    try:
        return builder.build_serialized_network(network, config)
    finally:
        calibrator.finish()


def check_network(trt: Any, network: Any, mode: str, typed: bool, onnx: str) -> None:
    """Check that a parsed network fits the mode.

    Raises:
        UserError: Q/DQ are missing or too many, or a strongly typed network is to run FP16 and holds none.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    quantized = any(layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE) for layer in layers)
    half = typed and any(
        layer.get_output(index).dtype == trt.DataType.HALF for layer in layers for index in range(layer.num_outputs)
    )
    note = check_precision(quantized, half, mode, typed, onnx)
    if note:
        print(f"note: {note}")


def check_precision(quantized: bool, half: bool, mode: str, typed: bool, onnx: str) -> str:
    """Check that an ONNX fits the mode; gives what to know of it, "" for nothing.

    Args:
        quantized: whether it has Q/DQ.
        half: whether it has FP16 tensors.
        mode: a key of ``options.MODES``.
        typed: whether the network is strongly typed.
        onnx: the file, for messages.

    Raises:
        UserError: see ``check_network``.
    """
    if quantized and mode != "qat":
        raise UserError(f"{onnx} holds Q/DQ nodes: build it with mode qat, or give the float ONNX for mode {mode}")
    if not quantized and mode == "qat":
        raise UserError(f"{onnx} holds no Q/DQ nodes: export a quantized model, or build it with mode fp16 or ptq")
    if not typed or half:
        return ""
    remedy = "export it with an FP16 remainder (export --fp16-remainder)"
    if mode == "fp16":
        raise UserError(f"{onnx} is all FP32 and a strongly typed network runs as it is written: {remedy}")
    return f"{onnx} has no FP16 tensor, so everything that is not quantized runs in FP32: {remedy}"


def configure(trt: Any, config: Any, options: BuildOptions, typed: bool) -> None:
    """Carry the options over to a builder config.

    Raises:
        UserError: TensorRT refuses the tactic sources.
    """
    if not typed:
        config.set_flag(trt.BuilderFlag.FP16)
        if options.mode in ("ptq", "qat"):
            config.set_flag(trt.BuilderFlag.INT8)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the layer information is names only
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 20)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.tactics is not None:
        mask = sum(1 << int(getattr(trt.TacticSource, name)) for name in options.tactics)
        if not config.set_tactic_sources(mask):
            raise UserError(f"TensorRT refused --tactics {'|'.join(options.tactics)} ({logger().last_error()})")


def _add_profile(builder: Any, config: Any, profile: dict[str, ShapeRange]) -> None:
    shapes = builder.create_optimization_profile()
    for name, (low, opt, high) in profile.items():
        shapes.set_shape(name, low, opt, high)
    if config.add_optimization_profile(shapes) < 0:
        raise UserError(f"TensorRT refused the shapes {profile} ({logger().last_error()}): correct --shapes")


def _set_calibration_profile(builder: Any, config: Any, profile: dict[str, ShapeRange]) -> None:
    """A dynamic network is calibrated at one shape, the profile's optimum."""
    shapes = builder.create_optimization_profile()
    for name, (_, opt, _) in profile.items():
        shapes.set_shape(name, opt, opt, opt)
    if not config.set_calibration_profile(shapes):
        raise UserError(f"TensorRT refused the calibration shapes ({logger().last_error()}): correct --shapes")


def _calibration_feed(
    inputs: dict[str, tuple[int, ...]],
    profile: dict[str, ShapeRange],
    calibration: CalibrationBatches | None,
    cache: str | None,
    onnx: str,
) -> CalibrationFeed:
    if len(inputs) != 1:
        raise UserError(f"{onnx} has {len(inputs)} inputs, calibration feeds one: give a detection network's ONNX")
    name, shape = next(iter(inputs.items()))
    shape = profile[name][1] if name in profile else shape
    return CalibrationFeed(calibration(shape) if calibration is not None else None, shape, cache)
