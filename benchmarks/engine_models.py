"""Write the ONNX files that benchmarks/engines.py builds: float, and Q/DQ in several placements. Needs torch.

Run it in a checkout that has the bundle: python /path/to/benchmarks/engine_models.py --cfg models/yolov5s.yaml --out DIR
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, ".")

import numpy as np
import torch
from random_net import random_net
from torch import nn

from quantization import quantize
from quantization.calibration.calibrate import calibrate_model
from quantization.cli.commands import pick_device
from quantization.data.images import Loader, open_dataset
from quantization.data.tensors import TensorLoader
from quantization.errors import UserError, log_to_stdout, run_main
from quantization.export.export import ExportOptions, export_onnx
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import choose_placement
from quantization.quantizers.modules import QuantUpsample
from quantization.quantizers.switches import shortcut_sums
from quantization.upstream import checkpoint
from quantization.upstream import model as upstream
from quantization.upstream.checkout import UPSTREAMS, enter_checkout

VARIANTS = {
    "rule": "the default: scale groups, both operands of sums, Upsample inputs, the head's largest shared input; stem float",
    "no-rule": "every convolution but the head's, each with a scale of its own",
    "groups": "as rule, with the head's inputs in float and the stem in INT8",
    "stem-int8": "as rule, with the stem in INT8",
    "plain-silu": "as rule, with SiLU behind the float stem as upstream has it",
    "head-float": "as rule, with the head's inputs in float",
    "head-shared": "as rule, with all of the head's shared inputs in INT8",
    "head-input": "as rule, with all of the head's inputs in INT8",
    "head-int8": "as rule, with the detect convolutions in INT8",
    "shortcut": "as rule, with the shortcut operand of the sums alone",
    "no-add": "as rule, with no operand of the sums",
    "no-upsample": "as rule, without the Upsample quantizers",
}
CALIBRATION_IMAGES = 64
CLASSES = 80  # as COCO


def place(model: nn.Module, variant: str) -> None:
    """Insert quantizers in one of ``VARIANTS``."""
    head = "float" if variant == "groups" else variant[5:] if variant.startswith("head-") else "auto"
    stem = "int8" if variant in ("groups", "stem-int8") else "auto"
    rules = variant != "no-rule"
    replace_to_quantization_module(model, choose_placement(model, (), head, stem, rules))
    if rules:
        quantize.apply_custom_rules_to_quantizer(model)


def leave_out(model: nn.Module, variant: str) -> None:
    """Take the quantizers out again that a variant does without; in place of a shared one, it alone goes."""
    for path in shortcut_sums(model):
        addition = model.get_submodule(path)
        if variant in ("shortcut", "no-add"):
            addition._input1_quantizer.disable()
        if variant == "no-add":
            addition._input0_quantizer = copy.copy(addition._input0_quantizer)
            addition._input0_quantizer.disable()
    for module in model.modules():
        if isinstance(module, QuantUpsample) and variant == "no-upsample":
            module._input_quantizer = copy.copy(module._input_quantizer)
            module._input_quantizer.disable()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cfg", help="net with random weights")
    parser.add_argument("--weight", help="trained checkpoint instead of --cfg")
    parser.add_argument("--name", required=True, choices=sorted(UPSTREAMS), help="the upstream")
    parser.add_argument("--cocodir", required=True, help="data to calibrate on, COCO layout (benchmarks/shapes.py)")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=["rule", "no-rule"])
    parser.add_argument("--device", default=None)
    options = parser.parse_args(arguments)
    if bool(options.cfg) == bool(options.weight):
        raise UserError("give either --cfg or --weight")
    log_to_stdout()
    logging.getLogger("quantization").setLevel(logging.WARNING)
    enter_checkout(options.name, Path.cwd())
    quantize.initialize("native")
    device = pick_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.weight:
        base, _ = checkpoint.load(options.weight, device, options.name)
    else:
        base = upstream.fuse(random_net(options.cfg, CLASSES)).to(device)
    loader = Loader(open_dataset(options.cocodir).train[:CALIBRATION_IMAGES], (options.size, options.size), 16)
    np.save(options.out / "calib.npy", np.concatenate([batch.images for batch in loader]))
    export, differences = ExportOptions((options.size, options.size), options.batch), {}
    differences["float"] = export_onnx(base, str(options.out / "float.onnx"), export).difference.largest
    for variant in options.variants:
        model = copy.deepcopy(base)
        place(model, variant)
        calibrate_model(model, TensorLoader(loader, device), "mse", len(loader))
        leave_out(model, variant)
        file = str(options.out / f"{variant}.onnx")
        respelled = (
            mock.patch("quantization.export.export.respell_float_silu")
            if variant == "plain-silu"
            else contextlib.nullcontext()
        )
        with respelled:
            differences[variant] = export_onnx(model, file, export).difference.largest
        print(f"{file}: ONNX Runtime differs from torch by {differences[variant]:.3g}", flush=True)
    facts: dict[str, object] = {
        "net": options.cfg or options.weight,
        "weights": "trained" if options.weight else "random",
        "size": options.size,
        "batch": options.batch,
        "torch": torch.__version__,
        "onnxruntime_difference": differences,
    }
    (options.out / "models.json").write_text(json.dumps(facts, indent=2))
    return 0


if __name__ == "__main__":
    run_main(main)
