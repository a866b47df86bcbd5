r"""Write the ONNX files that benchmarks/engines.py builds: float, and Q/DQ in several placements. Needs torch.

Run it in a checkout: python /path/to/benchmarks/engine_models.py --cfg models/yolov5s.yaml --name yolov5 \
    --cocodir DATA --out DIR
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
from pathlib import Path
from typing import Any, Sequence
from unittest import mock

import bundle  # noqa: F401  # puts quantization on the import path
import numpy as np
import torch
from random_net import random_net
from torch import nn

from quantization import quantize
from quantization.calibration.calibrate import calibrate_model
from quantization.data.dataset import open_dataset
from quantization.data.images import Loader
from quantization.data.tensors import TensorLoader, pick_device
from quantization.errors import UserError, log_to_stdout, run_main
from quantization.export import export
from quantization.export.export import export_onnx
from quantization.options import ExportOptions, PlacementOptions
from quantization.placement.activation_pairs import activation_pairs, image_convolution
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import choose_placement
from quantization.placement.variants import enabled_places, keep_places
from quantization.quantizers.backend import named_quantizers
from quantization.quantizers.modules import QuantAdd, QuantUpsample
from quantization.upstream import checkpoint
from quantization.upstream import model as upstream
from quantization.upstream.checkout import UPSTREAMS, enter_checkout

VARIANTS = {
    "rule": "scale groups, both operands of sums, Upsample inputs, the head's largest shared input; a strided stem float",
    "no-rule": "every convolution but the head's, each with its own scale",
    "groups": "as rule, with the head's inputs in float and the stem in INT8",
    "stem-int8": "as rule, with the stem in INT8",
    "stem-pair": "as rule, with the stem in INT8 and Q/DQ before its activation, if TensorRT does not fuse that",
    "act-pairs": "as stem-pair, with Q/DQ before every such activation",
    "plain-silu": "as rule, with SiLU behind the float stem as upstream has it",
    "head-float": "as rule, with the head's inputs in float",
    "head-shared": "as rule, with all of the head's shared inputs in INT8",
    "head-input": "as rule, with all of the head's inputs in INT8",
    "head-int8": "as rule, with the detect convolutions in INT8",
    "shortcut": "as rule, with only the shortcut operand of the sums quantized",
    "no-add": "as rule, with no operand of the sums quantized",
    "no-upsample": "as rule, without the Upsample quantizers",
}
CALIBRATION_IMAGES = 64
# variant to the operands of shortcut sums that it does without
FLOAT_OPERANDS = {"shortcut": ("_input1_quantizer",), "no-add": ("_input0_quantizer", "_input1_quantizer")}
ACTIVATION_PAIRS = {"stem-pair": "stem", "act-pairs": "all"}
CLASSES = 80  # as in COCO


def place(model: Any, variant: str) -> None:
    """Insert quantizers in one of ``VARIANTS``."""
    head = "float" if variant == "groups" else variant[5:] if variant.startswith("head-") else "auto"
    rules = variant != "no-rule"
    pairs = ACTIVATION_PAIRS.get(variant, "none")
    options = PlacementOptions(head=head, stem=stem_choice(model, variant), activation_pairs=pairs, rules=rules)
    replace_to_quantization_module(model, choose_placement(model, options))
    if rules:
        quantize.apply_custom_rules_to_quantizer(model)


def stem_choice(model: Any, variant: str) -> str:
    """``--stem`` of a variant, whatever "auto" has become since its engines were measured."""
    path = image_convolution(model)
    if path is None or variant in ("groups", "stem-int8"):
        return "int8"
    paired = path in activation_pairs(model, ACTIVATION_PAIRS.get(variant, "none"))
    return "float" if max(model.get_submodule(path).stride) > 1 and not paired else "int8"


def leave_out(model: nn.Module, variant: str) -> None:
    """Disable the quantizers that a variant does without; a shared one stays enabled in its other places."""
    gone = {
        (path, attribute)
        for path, attribute, module, _ in named_quantizers(model)
        if (isinstance(module, QuantUpsample) and variant == "no-upsample")
        or (isinstance(module, QuantAdd) and attribute in FLOAT_OPERANDS.get(variant, ()))
    }
    keep_places(model, enabled_places(model) - gone)


def write_variant(base: Any, variant: str, images: TensorLoader, file: str, shape: tuple[int, int]) -> float:
    """Quantize a copy of a float network as in one of ``VARIANTS`` and export it.

    Args:
        base: the float network.
        variant: a key of ``VARIANTS``.
        images: to calibrate on.
        file: the ONNX to write.
        shape: its batch, and the side of its images in pixels.

    Returns:
        The largest difference between ONNX Runtime and torch.
    """
    model = copy.deepcopy(base)
    place(model, variant)
    calibrate_model(model, images, "mse")
    leave_out(model, variant)
    plain = mock.patch.object(export, "respell_float_silu") if variant == "plain-silu" else contextlib.nullcontext()
    with plain:
        difference = export_onnx(model, file, ExportOptions((shape[1],), shape[0])).difference.largest
    print(f"{file}: ONNX Runtime differs from torch by {difference:.3g}", flush=True)
    return difference


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", help="network with random weights")
    parser.add_argument("--weight", help="trained checkpoint instead of --cfg")
    parser.add_argument("--name", required=True, choices=sorted(UPSTREAMS), help="the upstream")
    parser.add_argument("--cocodir", required=True, help="data to calibrate on, COCO layout (benchmarks/shapes.py)")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=["rule", "no-rule"])
    parser.add_argument("--device", default=None)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the ONNX files that the command line asks for, and models.json."""
    options = build_parser().parse_args(arguments)
    if bool(options.cfg) == bool(options.weight):
        raise UserError("give either --cfg or --weight")
    log_to_stdout()
    logging.getLogger("quantization").setLevel(logging.WARNING)
    enter_checkout(options.name, Path.cwd())
    quantize.initialize("native")
    device = pick_device(options.device)
    out, size = options.out, (options.size, options.size)
    out.mkdir(parents=True, exist_ok=True)
    if options.weight:
        base, _ = checkpoint.load(options.weight, device, options.name)
    else:
        base = upstream.fuse(random_net(options.cfg, CLASSES)).to(device)
    loader = Loader(open_dataset(options.cocodir).train[:CALIBRATION_IMAGES], size, 16)
    np.save(out / "calib.npy", np.concatenate([batch.images for batch in loader]))
    images, shape = TensorLoader(loader, device), (options.batch, options.size)
    differences = {
        "float": export_onnx(base, str(out / "float.onnx"), ExportOptions(size, options.batch)).difference.largest
    }
    for variant in options.variants:
        differences[variant] = write_variant(base, variant, images, str(out / f"{variant}.onnx"), shape)
    facts: dict[str, object] = {
        "net": options.cfg or options.weight,
        "weights": "trained" if options.weight else "random",
        "size": options.size,
        "batch": options.batch,
        "torch": torch.__version__,
        "onnxruntime_difference": differences,
    }
    (out / "models.json").write_text(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    run_main(main)
