"""Ranges of activations from ONNX Runtime: tensors of a few images at a time, streamed into histograms.

Memory is that of one run of the graph, of a portion of its tensors, and of the samples of one batch; no tensor is kept. Of
each batch, calibration takes the same values as from a checkpoint: the sample of a tensor depends on its size over the batch.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnxruntime
from onnx import ModelProto

from quantization.errors import UserError
from quantization.onnx_graph.session import session_options
from quantization.onnx_quantize.portions import part_for, portions, tensor_bytes
from quantization.progress_bar import progress_bar
from quantization.ranges.histograms import Calibrator
from quantization.ranges.samples import ArraySample

PORTION = 2**29  # bytes; what ONNX Runtime needs for itself comes on top


class TensorRunner:
    """Runs a graph on images and gives some of its tensors.

    The tensors of one run stay below a limit. Where all would be more, as with a large fixed batch, each portion of them
    is an ONNX Runtime session of its own, with the part of the graph that it needs.

    Args:
        model: with one image input.
        name: of the input.
        batch: its fixed size; None: one image at a time.
        tensors: names of what is wanted, the input may be among them; in the graph's order the portions need least.
        portion: bytes of tensors in one run; a larger tensor is alone.
    """

    def __init__(
        self, model: ModelProto, name: str, batch: int | None, tensors: Sequence[str], portion: int = PORTION
    ) -> None:
        self._model, self._name, self._step, self._portion = model, name, batch or 1, portion
        self._takes_input = name in tensors
        self._made = [tensor for tensor in tensors if tensor != name]
        # made for the first images: their sides say how large tensors are
        self._sessions: list[tuple[list[str], Any]] = []

    def __call__(self, images: np.ndarray) -> Iterator[tuple[int, str, np.ndarray]]:
        """The tensors for images (B, C, H, W), a few images at a time: of how many, the name, and its values.

        For each few the input comes first, if it is wanted, and then the others in the order of ``tensors``.

        Raises:
            UserError: ONNX Runtime refuses the graph, or fails, for example because the side is no multiple of the
                network's stride.
        """
        for start in range(0, len(images), self._step):
            part = images[start : start + self._step]
            count = len(part)
            if count < self._step:
                part = np.concatenate((part, np.zeros((self._step - count, *part.shape[1:]), part.dtype)))
            if not self._sessions:
                self._sessions = self._start(part.shape)
            if self._takes_input:
                yield count, self._name, part[:count]
            for names, session in self._sessions:
                found = self._run(session, names, part)
                while found:  # each is freed when its reader has done with it
                    name, tensor = names[-len(found)], found.pop(0).numpy()
                    yield count, name, tensor[:count] if len(tensor) == self._step else tensor

    def _start(self, shape: tuple[int, ...]) -> list[tuple[list[str], Any]]:
        settings = session_options()
        settings.log_severity_level = 3  # errors, which are raised too
        settings.enable_cpu_mem_arena = False  # which keeps the largest run's memory
        sizes = tensor_bytes(self._model, {self._name: shape}, self._made)
        sessions = []
        for names in portions(self._made, sizes, self._portion):
            content = part_for(self._model, names).SerializeToString()
            try:
                session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime has no public base class for its own errors
                raise UserError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[0]}") from error
            sessions.append((names, session))
        return sessions

    def _run(self, session: Any, names: Sequence[str], images: np.ndarray) -> list[Any]:
        """ONNX Runtime's own values, of which numpy arrays are views; ``session.run`` would copy all of them."""
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images))
        try:
            return list(session.run_with_ort_values(names, {self._name: value}))
        except Exception as error:  # as above
            raise UserError(
                f"ONNX Runtime cannot run the graph on images {images.shape} ({str(error).splitlines()[0]}): check --imgsz"
            ) from error


def collect_activations(
    runner: TensorRunner, calibrators: Mapping[str, Calibrator], batches: Iterable[np.ndarray], total: int
) -> None:
    """Show tensors to their calibrators.

    Args:
        runner: gives the tensors.
        calibrators: of each tensor, by its name.
        batches: images (B, C, H, W).
        total: number of images, for the progress bar.

    Raises:
        UserError: no image came, or a tensor holds NaN or infinity.
    """
    seen = 0
    with progress_bar(total=total, title="Calibrate", unit="image") as bar:
        for images in batches:
            samples: dict[str, ArraySample] = {}
            for count, name, tensor in runner(images):
                if name not in samples:
                    samples[name] = ArraySample(tensor.size // count * len(images))
                samples[name].add(tensor)
            for name, sample in samples.items():
                try:
                    calibrators[name].reach(sample.largest)
                except ValueError as error:
                    raise UserError(f"tensor {name} holds NaN or infinity on a calibration image") from error
                calibrators[name].count(sample)
            seen += len(images)
            bar.update(len(images))
    if not seen:
        raise UserError("calibration got no images: check --data or --images, and --calib-batches")
