"""Run a TensorRT engine on numpy images: plan in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantization.engine.cuda import Cuda, CudaError
from quantization.engine.options import Shape
from quantization.engine.versions import import_tensorrt, logger
from quantization.errors import UserError


def numpy_types(trt: Any) -> dict[Any, Any]:
    """TensorRT type to numpy type. Not ``trt.nptype``: up to 8.5 it uses ``np.bool``, which numpy 1.24 removed."""
    pairs = {
        "FLOAT": np.float32,
        "HALF": np.float16,
        "INT8": np.int8,
        "INT32": np.int32,
        "INT64": np.int64,
        "BOOL": np.bool_,
        "UINT8": np.uint8,
    }
    return {getattr(trt.DataType, name): np.dtype(kind) for name, kind in pairs.items() if hasattr(trt.DataType, name)}


def chunks(count: int, low: int, high: int) -> list[tuple[int, int, int]]:
    """Split ``count`` images into runs of an engine whose batch may be ``low`` to ``high``.

    Returns:
        (first image, images, batch to run) for each run; the batch exceeds the images where padding is needed.
    """
    return [(first, min(high, count - first), max(low, min(high, count - first))) for first in range(0, count, high)]


class Engine:
    """One engine with its context, stream and device buffers. Static and dynamic batch.

    Args:
        plan: serialized engine.
        cuda: CUDA runtime; made before the first engine.
        name: for messages.

    Attributes:
        input: name of the only input.
        outputs: names of the outputs, in the network's order.
        min_shape, opt_shape, max_shape: input shape (B, 3, H, W) allowed; all equal for a static engine.
        shape: input shape bound now.

    Raises:
        UserError: TensorRT refuses the plan, or it has not exactly one input.
    """

    def __init__(self, plan: bytes, cuda: Cuda, name: str = "engine") -> None:
        trt = import_tensorrt()
        self.name = name
        self._cuda = cuda
        trt.init_libnvinfer_plugins(logger(), "")  # a plan with NMS in it names its plugin
        self._runtime = trt.Runtime(logger())  # must outlive the engine
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UserError(
                f"{name}: TensorRT {trt.__version__} cannot load this plan ({logger().last_error()}): "
                "build it again with this TensorRT on this GPU"
            )
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [tensor for tensor in names if self.engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise UserError(f"{name}: the engine has {len(inputs)} inputs, not one: it is no detection network's")
        (self.input,) = inputs
        self.outputs = [tensor for tensor in names if tensor != self.input]
        kinds = numpy_types(trt)
        self._types = {tensor: kinds[self.engine.get_tensor_dtype(tensor)] for tensor in names}
        shape = tuple(self.engine.get_tensor_shape(self.input))
        self._is_dynamic = -1 in shape  # also where the profile leaves one shape only
        profile = self.engine.get_tensor_profile_shape(self.input, 0) if self._is_dynamic else (shape,) * 3
        self.min_shape, self.opt_shape, self.max_shape = (tuple(size) for size in profile)
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise UserError(f"{name}: no execution context ({logger().last_error()}): free GPU memory")
        self.stream = cuda.stream_create()
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor name to device address and bytes
        self.shape: Shape = ()
        try:
            self.bind(self.opt_shape)
        except BaseException:
            self.close()  # the others need the memory
            raise

    @classmethod
    def load(cls, path: str, cuda: Cuda) -> Engine:
        """Read a plan file.

        Raises:
            UserError: the file cannot be read or is no plan for this TensorRT.
        """
        try:
            with open(path, "rb") as file:
                return cls(file.read(), cuda, path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): name a plan file") from error

    def bind(self, shape: Shape) -> None:
        """Set the input shape and make room for all tensors.

        Raises:
            UserError: the engine does not take that shape.
        """
        # a static engine's shape is set already, and is the only one it has
        accepted = (
            self.context.set_input_shape(self.input, tuple(shape))
            if self._is_dynamic
            else tuple(shape) == self.max_shape
        )
        if not accepted:
            raise UserError(
                f"{self.name}: input {self.input} takes {self.min_shape} to {self.max_shape}, not "
                f"{tuple(shape)}: build it with other --shapes, --min-shapes and --max-shapes"
            )
        for tensor in [self.input, *self.outputs]:
            size = tuple(self.context.get_tensor_shape(tensor))
            if -1 in size:
                raise UserError(f"{self.name}: the shape of {tensor} {size} depends on the data: export without NMS")
            if not self.context.set_tensor_address(tensor, self._reserve(tensor, size)):
                raise UserError(f"{self.name}: TensorRT refused a buffer for {tensor} ({logger().last_error()})")
        self.shape = tuple(shape)

    def _reserve(self, tensor: str, shape: Shape) -> int:
        needed = int(np.prod(shape, dtype=np.int64)) * self._types[tensor].itemsize
        pointer, size = self._buffers.get(tensor, (0, -1))
        if needed > size:
            if tensor in self._buffers:
                del self._buffers[tensor]
                self._cuda.free(pointer)
            pointer = self._cuda.malloc(needed)
            self._buffers[tensor] = (pointer, needed)
        return pointer

    def enqueue(self) -> None:
        """Put one inference of the bound shape on the stream.

        Raises:
            CudaError: TensorRT refuses.
        """
        if not self.context.execute_async_v3(self.stream):
            raise CudaError(f"{self.name}: execution failed ({logger().last_error()})")

    def fill(self, seed: int = 0) -> None:
        """Put seeded random pixels in 0..1 into the input buffer, for timing."""
        pixels = np.random.default_rng(seed).random(self.shape, dtype=np.float32)
        self._cuda.upload(self._buffers[self.input][0], pixels.astype(self._types[self.input]))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run images (B, 3, H, W), any B; the first output (B, ...)."""
        return self.infer(images)[self.outputs[0]]

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run images in as many batches as needed; short batches are padded with zeros.

        Args:
            images: (B, 3, H, W) float32 in 0..1, B at least 1.

        Returns:
            Every output by name, (B, ...).

        Raises:
            UserError: the image size does not fit the engine.
        """
        fits = (
            images.ndim == 4
            and len(images) > 0
            and all(
                low <= size <= high for low, size, high in zip(self.min_shape[1:], images.shape[1:], self.max_shape[1:])
            )
        )
        if not fits:
            raise UserError(
                f"{self.name} takes images {self.min_shape} to {self.max_shape}, not {images.shape}: "
                "use the size that it was built with"
            )
        results: dict[str, list[np.ndarray]] = {tensor: [] for tensor in self.outputs}
        for first, count, batch in chunks(len(images), self.min_shape[0], self.max_shape[0]):
            padded = np.zeros((batch, *images.shape[1:]), dtype=self._types[self.input])
            padded[:count] = images[first : first + count]
            for tensor, output in self._run(padded).items():
                if output.ndim == 0 or len(output) != batch:
                    raise UserError(
                        f"{self.name}: output {tensor} {output.shape} has no batch dimension of {batch}: "
                        "export the network with a batch of its own for each image"
                    )
                results[tensor].append(output[:count])
        return {tensor: np.concatenate(parts) for tensor, parts in results.items()}

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        if batch.shape != self.shape:
            self.bind(batch.shape)
        self._cuda.upload_async(self._buffers[self.input][0], batch, self.stream)
        self.enqueue()
        outputs = {}
        for tensor in self.outputs:
            outputs[tensor] = np.empty(tuple(self.context.get_tensor_shape(tensor)), dtype=self._types[tensor])
            self._cuda.download_async(outputs[tensor], self._buffers[tensor][0], self.stream)
        self._cuda.stream_synchronize(self.stream)
        return outputs

    def close(self) -> None:
        """Free the device memory; the engine is unusable afterwards."""
        for pointer, _ in self._buffers.values():
            self._cuda.free(pointer)
        self._buffers = {}
        self.context = self.engine = self._runtime = None  # in this order: each keeps the next alive
        self._cuda.stream_destroy(self.stream)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
