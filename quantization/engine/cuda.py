"""The few CUDA runtime calls that running and timing an engine takes, through ctypes: nothing to install."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from quantization.errors import UserError

SONAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")

# Values of the enumerations in driver_types.h
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
SCHEDULE_AUTO, SCHEDULE_SPIN = 0, 1
STREAM_NON_BLOCKING = 1
CAPTURE_THREAD_LOCAL = 1  # calls of other threads do not break the capture
ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR = 75, 76

_HANDLE = POINTER(c_void_p)
SIGNATURES: dict[str, Sequence[Any]] = {
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaSetDevice": (c_int,),
    "cudaSetDeviceFlags": (c_uint,),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaGetLastError": (),
    "cudaDeviceSynchronize": (),
    "cudaMalloc": (_HANDLE, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMemcpy": (c_void_p, c_void_p, c_size_t, c_int),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (_HANDLE, c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, _HANDLE),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaEventCreateWithFlags": (_HANDLE, c_uint),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
}


class CudaError(UserError):
    """A CUDA call or the run of an engine failed, or no usable CUDA runtime library was found."""


def library_candidates() -> Iterator[str]:
    """Names and paths to try: LD_LIBRARY_PATH and ld.so.cache, pip's nvidia packages, the toolkit; newest first."""
    yield from SONAMES
    folders = [
        os.path.join(path, "nvidia", package, "lib") for path in sys.path for package in ("cu13", "cuda_runtime")
    ]
    folders += sorted(glob.glob("/usr/local/cuda*/lib64"), reverse=True)
    for soname in SONAMES:
        yield from (path for path in (os.path.join(folder, soname) for folder in folders) if os.path.isfile(path))


def load_library() -> Any:
    """Load the first CUDA runtime that works with this machine's driver.

    Raises:
        CudaError: there is none; the message says what each candidate answered.
    """
    answers: list[str] = []
    for candidate in library_candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue  # not installed under this name; if none is, the error below says so
        bind(library)
        count = c_int()
        code = library.cudaGetDeviceCount(byref(count))
        if code == 0 and count.value > 0:
            return library
        answers.append(f"{candidate}: {library.cudaGetErrorName(code).decode()}")
    if answers:
        raise CudaError(f"no usable NVIDIA GPU ({'; '.join(answers)}): check the driver with nvidia-smi")
    raise CudaError(
        f"no CUDA runtime library ({', '.join(SONAMES)}) found: pip install nvidia-cuda-runtime-cu12, or "
        "put the toolkit's folder in LD_LIBRARY_PATH"
    )


def bind(library: Any) -> None:
    """Set the argument types of the calls used (64-bit pointers would otherwise be cut to 32 bits)."""
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = list(arguments), c_int
    for name in ("cudaGetErrorName", "cudaGetErrorString"):
        function = getattr(library, name)
        function.argtypes, function.restype = [c_int], c_char_p
    if has_instantiate_with_flags(library):
        library.cudaGraphInstantiateWithFlags.argtypes = [_HANDLE, c_void_p, c_ulonglong]
        library.cudaGraphInstantiateWithFlags.restype = c_int
    else:
        library.cudaGraphInstantiate.argtypes = [_HANDLE, c_void_p, c_void_p, c_void_p, c_size_t]
        library.cudaGraphInstantiate.restype = c_int


def has_instantiate_with_flags(library: Any) -> bool:
    """From CUDA 11.4; cudaGraphInstantiate itself took an error node and a log before 12.0 and flags after."""
    return hasattr(library, "cudaGraphInstantiateWithFlags")


class Cuda:
    """CUDA runtime on one device. Every call is checked.

    Args:
        device: device ordinal.
        spin_wait: let the host spin while it waits for the GPU: less latency, one busy core.

    Raises:
        CudaError: no library, no device, or a call failed.
    """

    def __init__(self, device: int = 0, spin_wait: bool = False) -> None:
        self.library = load_library()
        self.device = device
        self._call("cudaSetDevice", device)
        # before anything creates the context (older runtimes refuse the flag afterwards)
        self._call("cudaSetDeviceFlags", SCHEDULE_SPIN if spin_wait else SCHEDULE_AUTO)
        self._call("cudaFree", None)  # creates the context

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(getattr(self.library, name)(*arguments), name)

    def _check(self, code: int, name: str) -> None:
        if code != 0:
            error = self.library.cudaGetErrorName(code).decode()
            text = self.library.cudaGetErrorString(code).decode()
            self.library.cudaGetLastError()  # else the next unrelated call may report it again
            raise CudaError(f"{name} failed with {error} ({text})")

    def is_lost(self) -> bool:
        """Whether an error has ended CUDA for this process.

        After an illegal memory access and its like, every later call gives the same error; a new process alone helps.
        """
        code = self.library.cudaDeviceSynchronize()
        self.library.cudaGetLastError()
        return bool(code != 0)

    def _give_back(self, name: str, handle: int) -> None:
        """Destroy something; where CUDA is lost, it is gone already."""
        code = getattr(self.library, name)(handle)
        if code != 0 and not self.is_lost():
            self._check(code, name)

    def _create(self, name: str, *arguments: Any) -> int:
        handle = c_void_p()
        self._call(name, byref(handle), *arguments)
        if not handle.value:
            raise CudaError(f"{name} gave an empty handle")
        return handle.value

    def device_name(self) -> str:
        """The GPU's name. cudaDeviceProp grew with the versions, but always starts with ``char name[256]``."""
        properties = ctypes.create_string_buffer(16384)
        self._call("cudaGetDeviceProperties", ctypes.cast(properties, c_void_p), self.device)
        return properties.raw[:256].split(b"\0")[0].decode()

    def compute_capability(self) -> tuple[int, int]:
        """Major and minor version."""
        values = (c_int(), c_int())
        for value, attribute in zip(values, (ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR)):
            self._call("cudaDeviceGetAttribute", byref(value), attribute, self.device)
        return values[0].value, values[1].value

    def versions(self) -> dict[str, str]:
        """Versions of the CUDA runtime library and of the newest CUDA that the driver supports."""
        result = {}
        for key, name in (("cuda_runtime", "cudaRuntimeGetVersion"), ("cuda_driver", "cudaDriverGetVersion")):
            value = c_int()
            self._call(name, byref(value))
            result[key] = f"{value.value // 1000}.{value.value % 1000 // 10}"
        return result

    def malloc(self, size: int) -> int:
        """Device memory of ``size`` bytes (at least 1): its address."""
        return self._create("cudaMalloc", max(size, 1))

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        self._give_back("cudaFree", pointer)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array to the device and wait."""
        self._call("cudaMemcpy", pointer, array.ctypes.data, array.nbytes, HOST_TO_DEVICE)
        self._call("cudaStreamSynchronize", None)  # cudaMemcpy may return while the device still copies

    def upload_async(self, pointer: int, array: np.ndarray, stream: int) -> None:
        """Copy a C-contiguous array to the device; the caller keeps it alive until the stream is synchronized."""
        self._call("cudaMemcpyAsync", pointer, array.ctypes.data, array.nbytes, HOST_TO_DEVICE, stream)

    def download_async(self, array: np.ndarray, pointer: int, stream: int) -> None:
        """Copy from the device into a C-contiguous array; valid once the stream is synchronized."""
        self._call("cudaMemcpyAsync", array.ctypes.data, pointer, array.nbytes, DEVICE_TO_HOST, stream)

    def stream_create(self) -> int:
        """A stream that does not wait for the default stream."""
        return self._create("cudaStreamCreateWithFlags", STREAM_NON_BLOCKING)

    def stream_synchronize(self, stream: int) -> None:
        """Wait for everything on the stream."""
        self._call("cudaStreamSynchronize", stream)

    def stream_destroy(self, stream: int) -> None:
        """Give a stream back."""
        self._give_back("cudaStreamDestroy", stream)

    def event_create(self) -> int:
        """An event that keeps the time."""
        return self._create("cudaEventCreateWithFlags", 0)

    def event_record(self, event: int, stream: int) -> None:
        """Put the event on the stream."""
        self._call("cudaEventRecord", event, stream)

    def event_synchronize(self, event: int) -> None:
        """Wait until the stream has passed the event."""
        self._call("cudaEventSynchronize", event)

    def event_elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two recorded events."""
        milliseconds = c_float()
        self._call("cudaEventElapsedTime", byref(milliseconds), start, end)
        return milliseconds.value

    def event_destroy(self, event: int) -> None:
        """Give an event back."""
        self._give_back("cudaEventDestroy", event)

    def graph_capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """Capture what ``enqueue`` puts on the stream into an executable graph.

        Raises:
            CudaError: the work cannot be captured. The stream is usable again.
        """
        self._call("cudaStreamBeginCapture", stream, CAPTURE_THREAD_LOCAL)
        graph = c_void_p()
        try:
            enqueue()
        except BaseException:
            self.library.cudaStreamEndCapture(stream, byref(graph))  # the first error counts, not this one's
            self.library.cudaGetLastError()
            raise
        self._call("cudaStreamEndCapture", stream, byref(graph))
        try:
            if has_instantiate_with_flags(self.library):
                return self._create("cudaGraphInstantiateWithFlags", graph, 0)
            return self._create("cudaGraphInstantiate", graph, None, None, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def graph_launch(self, graph: int, stream: int) -> None:
        """Put one replay of a captured graph on the stream."""
        self._call("cudaGraphLaunch", graph, stream)

    def graph_destroy(self, graph: int) -> None:
        """Give an executable graph back."""
        self._give_back("cudaGraphExecDestroy", graph)
