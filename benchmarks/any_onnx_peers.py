"""Q/DQ ONNX by other tools, on the same images as quantize-onnx.py: onnxruntime's static quantization, NVIDIA ModelOpt.

Each with the settings that its documentation gives for TensorRT: symmetric, weights per channel.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import onnx

HEADS = [r".*\.2/Conv$", r".*/dfl/", r".*/m\.\d+/Conv$"]  # ultralytics' two patterns, and YOLOv5's detect convolutions


class Reader:
    """Images one by one, as onnxruntime's quantizer asks for them."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._images, self._name, self._next = images, name, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image as a feed; None at the end."""
        if self._next == len(self._images):
            return None
        self._next += 1
        return {self._name: np.asarray(self._images[self._next - 1 : self._next])}


def by_onnxruntime(model: str, images: np.ndarray, save: str) -> None:
    """Static Q/DQ of onnxruntime.quantization: all operators that it knows, MinMax ranges, no quantized biases."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    reader: Any = Reader(images, onnx.load(model, load_external_data=False).graph.input[0].name)
    quantize_static(
        model,
        save,
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )


def by_modelopt(model: str, images: np.ndarray, save: str) -> None:
    """ModelOpt's ONNX PTQ as ultralytics calls it, but that what is not quantized stays FP32, for ONNX Runtime on a CPU."""
    from modelopt.onnx.quantization import quantize

    quantize(
        model,
        quantize_mode="int8",
        calibration_data=np.asarray(images),
        calibration_method="max",
        calibration_eps=["cpu"],
        nodes_to_exclude=HEADS,
        high_precision_dtype="fp32",
        output_path=save,
    )


TOOLS = {"onnxruntime": by_onnxruntime, "modelopt": by_modelopt}


def main() -> None:
    """Quantize by one tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("model", help="float ONNX")
    parser.add_argument("images", help=".npy of (N, 3, H, W), float32")
    parser.add_argument("save", help="ONNX to write")
    options = parser.parse_args()
    TOOLS[options.tool](options.model, np.load(options.images, mmap_mode="r"), options.save)


if __name__ == "__main__":
    main()
