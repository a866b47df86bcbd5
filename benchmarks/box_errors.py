r"""Does a quantized network lose mAP through its boxes or its scores? mAP of mixtures with the float network's.

    python benchmarks/box_errors.py --upstream yolov5 --checkout path/to/yolov5 --weight float.pt --ptq ptq.pt -- \
        --cocodir path/to/data --imgsz 320 --square --nmsthres 0.65

``ptq.pt`` is what quantize made of ``float.pt``; what follows ``--`` are options of the command test. Both networks see
the same images; each line takes some of the decoded columns from the quantized one and the others from the float one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from typing import Callable, Sequence

import bundle  # noqa: F401  # puts quantization on the import path
import numpy as np

from quantization.cli.options import EvaluationCommand
from quantization.cli.parser import parse
from quantization.data.tensors import pick_device
from quantization.errors import UserError, run_main
from quantization.evaluation.network import make_evaluator, open_checked
from quantization.upstream import checkpoint
from quantization.upstream.checkout import enter_checkout
from quantization.upstream.network import torch_network
from quantization.upstream.predictor import torch_predictor

# name to the columns x, y, width, height, scores ... that the quantized network gives
MIXTURES: dict[str, tuple[int, int | None]] = {
    "float": (0, 0),
    "quantized": (0, None),
    "quantized boxes": (0, 4),
    "quantized centres": (0, 2),
    "quantized sides": (2, 4),
    "quantized scores": (4, None),
}


def mixture(
    float_net: Callable[[np.ndarray], np.ndarray],
    quantized: Callable[[np.ndarray], np.ndarray],
    columns: tuple[int, int | None],
) -> Callable[[np.ndarray], np.ndarray]:
    """A predictor (B, 3, H, W) to (B, boxes, 5 + classes) with some columns of one network and the others of another."""

    def predict(images: np.ndarray) -> np.ndarray:
        output = float_net(images).copy()
        part = slice(*columns)
        output[..., part] = quantized(images)[..., part]
        return output

    return predict


def compare(name: str, weight: Path, ptq: Path, options: EvaluationCommand) -> None:
    """Evaluate every mixture and print what it loses."""
    device, images = pick_device(options.run.device), options.checkpoint_images()
    nets = []
    for file in (weight, ptq):
        with contextlib.redirect_stdout(io.StringIO()):  # upstream reports its fusing
            model, _ = checkpoint.load(str(file), device, name)
        nets.append(model)
    network = torch_network(name, nets[0], str(weight), images)
    checked = open_checked(images, network)
    evaluator = make_evaluator(images, network, checked.dataset, checked.truth)
    whole = None
    for title, columns in MIXTURES.items():
        metrics = evaluator(mixture(torch_predictor(nets[0]), torch_predictor(nets[1]), columns), title, quiet=True)
        whole = whole or metrics
        print(
            f"{title:18s} mAP@0.5:0.95 {100 * metrics.map:.2f}, lost {100 * (whole.map - metrics.map):.2f}; mAP@0.5 "
            f"{100 * metrics.map50:.2f}, lost {100 * (whole.map50 - metrics.map50):.2f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two checkpoints that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=("yolov5", "yolov7"), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--weight", type=Path, required=True, help="the float checkpoint")
    parser.add_argument("--ptq", type=Path, required=True, help="what quantize made of it")
    parser.add_argument("rest", nargs="+", metavar="-- ARGUMENT", help="options of the command test")
    options = parser.parse_args(arguments)
    for file in (options.weight, options.ptq):
        if not file.is_file():
            raise UserError(f"{file} does not exist")
    _, settings = parse(options.upstream, ["test", str(options.ptq), *options.rest])
    assert isinstance(settings, EvaluationCommand)
    enter_checkout(options.upstream, options.checkout.resolve())
    compare(options.upstream, options.weight, options.ptq, settings)
    return 0


if __name__ == "__main__":
    run_main(main)
