"""Ranges of activations from ONNX Runtime: tensors of a few images at a time, streamed into histograms.

Memory is that of one run of the graph and of the samples of one batch; no tensor is kept. Of each batch, calibration takes
the same values as from a checkpoint: the sample of a tensor depends on its size over the batch.
"""

from __future__ import annotations

from typing import Iterable, Iterator, Sequence

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from quantization.errors import UserError
from quantization.onnx_graph.session import session_options
from quantization.progress_bar import progress_bar
from quantization.ranges.group_scales import SharedTensors
from quantization.ranges.samples import ArraySample


class TensorRunner:
    """Runs a graph on images and gives some of its tensors.

    Args:
        model: with one image input.
        name: of the input.
        batch: its fixed size; None: one image at a time.
        tensors: names of what is wanted, the input may be among them.

    Raises:
        UserError: ONNX Runtime refuses the graph.
    """

    def __init__(self, model: ModelProto, name: str, batch: int | None, tensors: Sequence[str]) -> None:
        self._name, self._step = name, batch or 1
        self._tensors = list(tensors)
        self._made = [tensor for tensor in tensors if tensor != name]
        wanted = ModelProto()
        wanted.CopyFrom(model)
        present = {value.name for value in model.graph.output}
        wanted.graph.output.extend(
            helper.make_empty_tensor_value_info(tensor) for tensor in self._made if tensor not in present
        )
        settings = session_options()
        settings.log_severity_level = 3  # errors, which are raised too
        settings.enable_cpu_mem_arena = False  # which keeps the largest run's memory
        try:
            self._session = onnxruntime.InferenceSession(
                wanted.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no public base class for its own errors
            raise UserError(f"ONNX Runtime refuses the graph: {str(error).splitlines()[0]}") from error

    def __call__(self, images: np.ndarray) -> Iterator[tuple[int, list[np.ndarray]]]:
        """The tensors for images (B, C, H, W), a few at a time: how many images, and their tensors.

        Raises:
            UserError: ONNX Runtime fails, for example because the side is no multiple of the network's stride.
        """
        for start in range(0, len(images), self._step):
            part = images[start : start + self._step]
            count = len(part)
            if count < self._step:
                part = np.concatenate((part, np.zeros((self._step - count, *part.shape[1:]), part.dtype)))
            found = dict(zip(self._made, self._run(part)))
            found[self._name] = part
            tensors = [found[tensor] for tensor in self._tensors]
            yield count, [tensor[:count] if len(tensor) == self._step else tensor for tensor in tensors]

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        try:
            found: list[np.ndarray] = self._session.run(self._made, {self._name: images})
        except Exception as error:  # as above
            raise UserError(
                f"ONNX Runtime cannot run the graph on images {images.shape} ({str(error).splitlines()[0]}): check --imgsz"
            ) from error
        return found


def collect_activations(
    runner: TensorRunner,
    groups: Sequence[SharedTensors],
    batches: Iterable[np.ndarray],
    total: int,
    names: Sequence[str],
) -> None:
    """Show the tensors of each group to its calibrators.

    Args:
        runner: gives the tensors of all groups, in their order.
        groups: take them.
        batches: images (B, C, H, W).
        total: number of images, for the progress bar.
        names: of the tensors, for messages.

    Raises:
        UserError: no image came, or a tensor holds NaN or infinity.
    """
    calibrators = [calibrator for group in groups for calibrator in group.tensors]
    seen = 0
    with progress_bar(total=total, title="Calibrate", unit="image") as bar:
        for images in batches:
            samples: list[ArraySample] = []
            for count, tensors in runner(images):
                if not samples:
                    samples = [ArraySample(tensor.size // count * len(images)) for tensor in tensors]
                for sample, tensor in zip(samples, tensors):
                    sample.add(tensor)
                bar.update(count)
            for name, calibrator, sample in zip(names, calibrators, samples):
                try:
                    calibrator.reach(sample.largest)
                except ValueError as error:
                    raise UserError(f"tensor {name} holds NaN or infinity on a calibration image") from error
                calibrator.count(sample)
            seen += len(images)
    if not seen:
        raise UserError("calibration got no images: check --data or --images, and --calib-batches")
