"""Stand-ins for a machine without a GPU.

A CUDA runtime library in C on host memory with a clock of its own, and a tensorrt module whose engines compute the mean
of every image there.
"""

from __future__ import annotations

import ctypes
import enum
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from quantization.engine import cuda, versions

LAUNCH_MS = 1.5

CUDART = Path(__file__).with_name("cudart.c")


def compile_cudart(folder: Path, *defines: str) -> str | None:
    """Compile the library once; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    library = folder / f"libcudart{''.join(defines)}.so"
    if compiler is None or library.exists():
        return compiler and str(library)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", *(f"-D{name}" for name in defines), "-o", str(library), str(CUDART)],
        check=True,
    )
    return str(library)


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = 1, 2


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL = range(5)


class LayerType(enum.Enum):
    CONVOLUTION, QUANTIZE, DEQUANTIZE = range(3)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0


class BuilderFlag(enum.IntEnum):
    FP16, INT8, TF32 = range(3)


class TacticSource(enum.IntEnum):
    CUBLAS, CUBLAS_LT, CUDNN, EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS = range(5)


class ILogger:
    ERROR, INTERNAL_ERROR, WARNING, INFO, VERBOSE = range(5)


class IProfiler:
    pass


class IInt8EntropyCalibrator2:
    pass


class Context:
    """An execution context; runs mean over (C, H, W) into a (B, 1) output.

    ``fault`` takes the number of runs before this one, and says whether TensorRT refuses it.
    """

    library: Any = None  # the stand-in for CUDA, while there is one

    def __init__(self, shape: Any, fault: Callable[[int], bool] | None = None) -> None:
        self.shape = tuple(shape)
        self.fault = fault
        self.addresses: dict[str, int] = {}
        self.profiler: Any = None
        self.runs = 0
        self.refuse = False

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self.shape = tuple(shape)
        return -1 not in shape

    def get_tensor_shape(self, name: str) -> Any:
        return self.shape if name == "images" else (self.shape[0], 1)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.refuse or (self.fault is not None and self.fault(self.runs)):
            return False
        self.runs += 1
        self.library.fakeRun()
        images, output = (
            np.ctypeslib.as_array(
                ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float)), self.get_tensor_shape(name)
            )
            for name in ("images", "output")
        )
        output[:, 0] = images.mean(axis=(1, 2, 3))
        if self.profiler is not None:
            for name, factor in (("conv\x1e1", 1.0), ("add", 0.25)):
                self.profiler.report_layer_time(name, factor * self.runs)
        return True


def lose_cuda() -> None:
    """From now on every CUDA call fails."""
    Context.library.fakeLose(1)


class CudaEngine:
    num_io_tensors = 2

    def __init__(self, shapes: Any, dynamic: bool, fault: Callable[[int], bool] | None = None) -> None:
        self.shapes, self.dynamic, self.fault = shapes, dynamic, fault  # min, opt, max

    def get_tensor_name(self, index: int) -> str:
        return ("images", "output")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Any:
        low, _, high = self.shapes
        return tuple(-1 if a != b or (self.dynamic and axis == 0) else a for axis, (a, b) in enumerate(zip(low, high)))

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self.shapes

    def create_execution_context(self) -> Context:
        return Context(self.get_tensor_shape("images"), self.fault)

    def create_engine_inspector(self) -> Any:
        return types.SimpleNamespace(
            execution_context=None, get_engine_information=lambda form: '{"Layers": [], "Bindings": []}'
        )


class Profile(dict):
    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        self[name] = (tuple(low), tuple(opt), tuple(high))


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class BuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[Profile] = []
        self.int8_calibrator: Any = None

    def set_flag(self, flag: BuilderFlag) -> None:
        pass

    clear_flag = set_flag

    def set_tactic_sources(self, mask: int) -> bool:
        return True

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.timing_cache = cache
        return cache.content != b"of another GPU"

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: Profile) -> bool:
        self.calibration_profile = profile
        return True


class Builder:
    """Its network is one convolution on images (-1, 3, 4, 4), quantized if its ONNX is.

    A plan says what it was calibrated with, or what it was built from.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    def create_network(self, flags: int) -> Any:
        layer = types.SimpleNamespace(type=LayerType.CONVOLUTION, num_outputs=0)
        images = types.SimpleNamespace(name="images", shape=(-1, 3, 4, 4))
        return types.SimpleNamespace(
            num_layers=1, get_layer=lambda index: layer, layer=layer, num_inputs=1, get_input=lambda index: images
        )

    def create_builder_config(self) -> BuilderConfig:
        self.module.last_config = BuilderConfig()
        return self.module.last_config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: BuilderConfig) -> bytes:
        config.timing_cache.content += b"+"
        self.module.builds += 1
        if config.int8_calibrator is None:
            return b"plan of " + network.content
        scales = config.int8_calibrator.read_calibration_cache()
        if scales is None:
            batches = 0
            while config.int8_calibrator.get_batch(["images"]) is not None:
                batches += 1
            config.int8_calibrator.write_calibration_cache(memoryview(b"cache scales"))
            scales = b"%d batches" % batches
        return b"plan of " + scales


class OnnxParser:
    """Refuses an empty file."""

    num_errors = 1

    def __init__(self, network: Any, log: Any) -> None:
        self.network = network

    def parse_from_file(self, path: str) -> bool:
        self.network.content = content = Path(path).read_bytes()
        if b"QuantizeLinear" in content:
            self.network.layer.type = LayerType.QUANTIZE
        return bool(content)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: "no opset\n at node 7")


def make_module(version: str, shapes: Any, dynamic: bool) -> Any:
    """A tensorrt module.

    A plan is any bytes but b"bad", nor with b"plugin" before the plugins are registered; its engine takes ``shapes`` (min,
    opt, max); ``dynamic``: the network's batch is -1 even if these are equal. ``faults``: plan to its engine's fault, see
    ``Context``.
    """
    module: Any = types.ModuleType("tensorrt")
    module.__version__, module.builds, module.faults = version, 0, {}
    for item in (
        TensorIOMode,
        DataType,
        LayerType,
        NetworkDefinitionCreationFlag,
        BuilderFlag,
        TacticSource,
        ILogger,
        IProfiler,
        IInt8EntropyCalibrator2,
    ):
        setattr(module, item.__name__, item)
    module.LayerInformationFormat = types.SimpleNamespace(JSON=1)
    module.ProfilingVerbosity = types.SimpleNamespace(DETAILED="detailed")
    plugins: list[str] = []

    def register_plugins(log: Any, namespace: str) -> bool:
        plugins.append(namespace)
        return True

    module.init_libnvinfer_plugins = register_plugins
    module.Builder = lambda log: Builder(module)
    module.OnnxParser = OnnxParser
    module.Runtime = lambda log: types.SimpleNamespace(
        deserialize_cuda_engine=lambda plan: (
            None
            if plan == b"bad" or (b"plugin" in plan and not plugins)
            else CudaEngine(shapes, dynamic, module.faults.get(plan))
        )
    )
    return module


@pytest.fixture(name="fake_cuda")
def fake_cuda_fixture(tmp_path_factory, monkeypatch):
    """Makes Cuda() load stand-in libraries, compiled with the macros given for each."""

    def install(*variants):
        paths = [compile_cudart(tmp_path_factory.getbasetemp(), *defines) for defines in variants or [()]]
        if None in paths:
            pytest.skip("no C compiler")
        monkeypatch.setattr(cuda, "library_candidates", lambda: iter(paths))
        library = ctypes.CDLL(paths[-1])
        library.fakeLose(0)
        monkeypatch.setattr(Context, "library", library)

    return install


@pytest.fixture(name="fake_trt")
def fake_trt_fixture(monkeypatch):
    """Makes the fake tensorrt importable, its engines taking the shapes given (min, opt, max); gives the module."""

    def install(low=(1, 3, 4, 4), opt=(1, 3, 4, 4), high=(1, 3, 4, 4), dynamic=False, version="8.6.0"):
        versions.import_tensorrt.cache_clear()
        versions.logger.cache_clear()
        module = make_module(version, (low, opt, high), dynamic)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        return module

    yield install
    versions.import_tensorrt.cache_clear()
    versions.logger.cache_clear()
