r"""QAT recipes from one PTQ checkpoint, on the same batches: mAP after each epoch, and which recipe ends closest to float.

    python benchmarks/qat_recipes.py --upstream yolov5 --checkout path/to/yolov5 --bits 6 -- \
        best.pt --data data.yaml --imgsz 160 --epochs 3 --iters 100

With labels, a network may end above its float checkpoint because it is trained further; ``--control`` shows by how much.

What follows ``--`` goes to the command ``quantize``; its QAT options are the base that each recipe changes. At 8 bits a
trained network may lose less than the noise of its mAP; fewer ``--bits`` make the loss larger, so that recipes can be
told apart. The ranges stay those that calibration found for 8 bits.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Sequence

import bundle  # noqa: F401  # puts quantization on the import path
from turns import machine

from quantization.cli.options import QuantizeCommand
from quantization.cli.parser import parse
from quantization.errors import UserError, run_main
from quantization.option_fields import record
from quantization.options import QatOptions
from quantization.upstream.checkout import enter_checkout

# name to what a recipe changes of the base
RECIPES: dict[str, dict[str, Any]] = {
    "published": {"task_weight": 0.0, "loss": "mse", "schedule": "steps", "lr": 1e-5},
    "normalised, cosine": {"task_weight": 0.0},
    "normalised, cosine, head": {"task_weight": 0.0, "head_weight": 1.0},
    "normalised, cosine, task": {"task_weight": 1.0},
    "normalised, cosine, task, head": {"task_weight": 1.0, "head_weight": 1.0},
    "normalised, cosine, task, EMA": {"task_weight": 1.0, "ema": 0.99},
    "normalised, cosine, task, LSQ": {"task_weight": 1.0, "learn_scales": True},
}


def quantize_options(name: str, words: list[str]) -> QuantizeCommand:
    """The options of the command quantize."""
    _, options = parse(name, ["quantize", *words])
    assert isinstance(options, QuantizeCommand)
    return options


class Comparison:
    """A float network and what PTQ makes of it, from which every recipe starts.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command quantize.
        bits: width of all quantizers during training.
    """

    def __init__(self, name: str, options: QuantizeCommand, bits: int) -> None:
        from quantization.cli.preparation import calibrate, prepare
        from quantization.data.tensors import pick_device
        from quantization.evaluation.network import make_evaluator, open_checked
        from quantization.placement.policy import choose_placement
        from quantization.quantizers.backend import named_quantizers, set_bits
        from quantization.upstream import checkpoint
        from quantization.upstream.network import torch_network

        self.name, self.options, self.device = name, options, pick_device(options.run.device)
        self.teacher, _ = checkpoint.load(options.weight, self.device, name)
        self.network = torch_network(name, self.teacher, options.weight, options.images)
        checked = open_checked(options.images, self.network, train=True, train_labels=True)
        self.dataset = checked.dataset
        self.evaluator = make_evaluator(options.images, self.network, self.dataset, checked.truth)
        placement = choose_placement(self.teacher, options.placement)
        prepare(self.teacher, self.dataset, options.images, options.calibration)
        self.ptq = copy.deepcopy(self.teacher)
        calibrate(self.ptq, self.dataset, placement, options)
        for _, _, _, quantizer in named_quantizers(self.ptq):
            set_bits(quantizer, bits)

    def points(self, model: Any) -> float:
        """Points of mAP@0.5:0.95."""
        from quantization.upstream.predictor import torch_predictor

        return 100 * float(self.evaluator(torch_predictor(model), "", quiet=True).map)

    def train(self, start: Any, recipe: QatOptions) -> list[float]:
        """Points after each epoch of a recipe that starts from a copy of ``start``."""
        import torch

        from quantization.data.images import Loader
        from quantization.data.tensors import LabelledImages
        from quantization.qat.run import task_loss
        from quantization.qat.trainer import Trainer, finetune

        model, images = copy.deepcopy(start), self.options.images
        epochs: list[float] = []
        size = (images.imgsz, images.imgsz)
        loader = Loader(self.dataset.train, size, images.batch_size, images.workers, shuffle_seed=images.seed)
        torch.manual_seed(images.seed)
        task = task_loss(self.name, model, recipe.task_weight, images.imgsz)
        batches = LabelledImages(loader, self.device, None if task is None else self.network.classes)
        trainer = Trainer(model, self.teacher, recipe, task)
        finetune(trainer, batches, lambda epoch, loss, lr: epochs.append(self.points(model)))
        return epochs


def compare(
    comparison: Comparison, recipes: dict[str, QatOptions], result: dict[str, Any], control: bool, file: Path | None
) -> None:
    """Run every recipe; the figures, in points of mAP@0.5:0.95, go into ``result`` and ``file``."""
    starts = [(name, recipe, comparison.ptq) for name, recipe in recipes.items()]
    if control:
        starts += [(f"{name}, not quantized", recipe, comparison.teacher) for name, recipe in recipes.items()]
    for name, recipe, start in starts:
        begin = time.perf_counter()
        epochs = comparison.train(start, recipe)
        seconds = time.perf_counter() - begin
        result["recipes"][name] = {"options": record(recipe), "map": epochs, "seconds": round(seconds, 1)}
        print(
            f"{name:30s} {' '.join(f'{value:.2f}' for value in epochs)}  best {max(epochs) - result['float']:+.2f} "
            f"against float, {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if file:
            file.write_text(json.dumps(result, indent=1))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=("yolov5", "yolov7"), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--bits", type=int, default=8, help="width of all quantizers")
    parser.add_argument(
        "--recipe", action="append", metavar="NAME=OPTIONS", help="instead of those built in; repeatable"
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="train the float network by each recipe too: what labels gain without any quantization",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("rest", nargs="+", metavar="-- ARGUMENT", help="arguments of the command quantize")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the recipes that the command line names."""
    options = build_parser().parse_args(arguments)
    words = [os.path.abspath(word) if os.path.exists(word) else word for word in options.rest]
    output = options.json.resolve() if options.json else None
    base = quantize_options(options.upstream, words)
    recipes = {name: dataclasses.replace(base.training, **changes) for name, changes in RECIPES.items()}
    if options.recipe:
        recipes = {}
        for recipe in options.recipe:
            name, equals, text = recipe.partition("=")
            if not equals:
                raise UserError(f"--recipe {recipe} is not of the form NAME=OPTIONS")
            recipes[name] = quantize_options(options.upstream, [*words, *shlex.split(text)]).training
    enter_checkout(options.upstream, options.checkout.resolve())
    with contextlib.redirect_stdout(io.StringIO()):  # upstream reports its fusing
        comparison = Comparison(options.upstream, base, options.bits)
        result: dict[str, Any] = {
            "machine": machine(),
            "images": len(comparison.dataset.val),
            "bits": options.bits,
            "options": words,
            "float": comparison.points(comparison.teacher),
            "ptq": comparison.points(comparison.ptq),
            "recipes": {},
        }
        print(
            f"{result['machine']}, {options.bits} bits, mAP@0.5:0.95 over {result['images']} images: "
            f"float {result['float']:.2f}, PTQ {result['ptq']:.2f}",
            file=sys.stderr,
            flush=True,
        )
        compare(comparison, recipes, result, options.control, output)
    return 0


if __name__ == "__main__":
    run_main(main)
