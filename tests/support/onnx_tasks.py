"""A network quantized through its checkout, and its float ONNX: run in a checkout, ``python onnx_tasks.py UPSTREAM ...``.

Prints, as JSON on the last line, the groups and ranges that calibration of the checkpoint gives on the images of an array.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

from quantization.upstream.checkout import enter_checkout

if __name__ == "__main__":
    enter_checkout(sys.argv[1], Path.cwd())

import numpy as np
import onnx
import torch
from random_net import random_net

from quantization import quantize
from quantization.export.graph import export_graph
from quantization.options import CalibrationOptions, ExportOptions
from quantization.placement.policy import choose_placement
from quantization.placement.scale_groups import shared_groups
from quantization.quantizers.backend import get_amax, get_quantizer
from quantization.upstream import model as upstream


def main(cfg: str, images: str, batch_size: str, file: str) -> None:
    """Write the float ONNX to ``file``, quantize the same network, print its groups."""
    values = torch.from_numpy(np.load(images))
    model = upstream.fuse(random_net(cfg, 3)).eval()
    onnx.save(export_graph(model, ExportOptions((values.shape[2],))), file)
    quantize.initialize("native")
    options = CalibrationOptions(method="mse", equalize=False)
    quantize.quantize(model, values.split(int(batch_size)), choose_placement(model), options)
    found = []
    for group in shared_groups(model):
        path, name = group.members[0]
        amax = get_amax(get_quantizer(model.get_submodule(path), name))
        assert amax is not None  # it was calibrated
        found.append([list(group.names), float(amax)])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[2:])
