"""QAT recipes from one PTQ checkpoint, on the same batches: mAP after each epoch, and which recipe ends closest to float.

    python benchmarks/qat_recipes.py --upstream yolov5 --checkout path/to/yolov5 --bits 6 -- \\
        best.pt --data data.yaml --imgsz 160 --epochs 3 --iters 100

With labels a net may end above its float checkpoint, because it trains on; ``--control`` shows by how much.

What follows ``--`` goes to the command ``quantize``; its QAT options are the base that each recipe changes. At 8 bits a
trained net may lose less than the noise of its mAP; ``--bits`` makes the loss larger, so that recipes can be told apart.
The ranges stay those that calibration found for 8 bits.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from turns import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.quantize import equalize_channels, insert_and_calibrate
from quantization.upstream.predictor import torch_predictor

RECIPES = {
    "published": "--task-weight 0 --loss mse --schedule steps --lr 1e-5",
    "normalised, cosine": "--task-weight 0 --loss normalised --schedule cosine",
    "normalised, cosine, head": "--task-weight 0 --loss normalised --schedule cosine --head-weight 1",
    "normalised, cosine, task": "--task-weight 1 --loss normalised --schedule cosine",
    "normalised, cosine, task, head": "--task-weight 1 --loss normalised --schedule cosine --head-weight 1",
    "normalised, cosine, task, EMA": "--task-weight 1 --loss normalised --schedule cosine --ema 0.99",
    "normalised, cosine, task, LSQ": "--task-weight 1 --loss normalised --schedule cosine --learn-scales",
}


def compare(options: argparse.Namespace, settings: argparse.Namespace, parse: Any) -> dict[str, Any]:
    """PTQ once, then every recipe from it; a dictionary of the figures, in points of mAP@0.5:0.95."""
    import torch

    from quantization.cli import commands
    from quantization.data.images import Loader, open_dataset
    from quantization.data.tensors import LabelledImages
    from quantization.qat.run import finetune_options, task_loss
    from quantization.qat.trainer import finetune
    from quantization.quantizers.backend import named_quantizers, set_bits
    from quantization.upstream import checkpoint
    from quantization.upstream import model as upstream

    device = commands.pick_device(settings.device)
    dataset = open_dataset(settings.cocodir, settings.data)
    teacher, _ = checkpoint.load(settings.weight, device, options.upstream)
    evaluator = commands.make_evaluator(
        options.upstream, settings, dataset, upstream.class_count(teacher), int(teacher.stride.max())
    )

    def points(model: Any) -> float:
        return 100 * float(evaluator(torch_predictor(model), "", quiet=True).map)

    equalize_channels(teacher, dataset, settings)
    ptq = copy.deepcopy(teacher)
    insert_and_calibrate(ptq, dataset, settings)
    for _, _, _, quantizer in named_quantizers(ptq):
        set_bits(quantizer, options.bits)
    result: dict[str, Any] = {
        "machine": machine(),
        "images": len(dataset.val),
        "bits": options.bits,
        "options": options.rest,
        "float": points(teacher),
        "ptq": points(ptq),
        "recipes": {},
    }
    print(
        f"{result['machine']}, {options.bits} bits, mAP@0.5:0.95 over {len(dataset.val)} images: "
        f"float {result['float']:.2f}, PTQ {result['ptq']:.2f}",
        file=sys.stderr,
        flush=True,
    )
    chosen = dict(recipe.split("=", 1) for recipe in options.recipe) if options.recipe else RECIPES
    starts = [(name, words, ptq) for name, words in chosen.items()]
    if options.control:
        starts += [(f"{name}, not quantized", words, teacher) for name, words in chosen.items()]
    for name, words, start in starts:
        recipe = parse(["quantize", *options.rest, *shlex.split(words)])
        model = copy.deepcopy(start)
        loader = Loader(
            dataset.train,
            (settings.imgsz, settings.imgsz),
            settings.batch_size,
            settings.workers,
            shuffle_seed=settings.seed,
        )
        torch.manual_seed(settings.seed)
        epochs = []
        begin = time.perf_counter()
        task = task_loss(options.upstream, model, dataset.train, recipe)
        batches = LabelledImages(loader, device, None if task is None else upstream.class_count(model))
        finetune(
            model,
            teacher,
            batches,
            finetune_options(recipe),
            lambda epoch, loss, lr: epochs.append(points(model)),
            task,
        )
        seconds = time.perf_counter() - begin
        result["recipes"][name] = {"options": words, "map": epochs, "seconds": round(seconds, 1)}
        print(
            f"{name:30s} {' '.join(f'{value:.2f}' for value in epochs)}  best {max(epochs) - result['float']:+.2f} "
            f"against float, {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(result, indent=1))
    return result


def main() -> None:
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
        help="train the float net by each recipe too: what labels gain without any quantization",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("rest", nargs="+", metavar="-- ARGUMENT", help="arguments of the command quantize")
    options = parser.parse_args()
    from quantization.cli import parser as cli
    from quantization.upstream.checkout import enter_checkout

    options.rest = [os.path.abspath(word) if os.path.exists(word) else word for word in options.rest]
    options.json = options.json.resolve() if options.json else None
    parse = cli.build_parser(options.upstream).parse_args
    settings = parse(["quantize", *options.rest])
    enter_checkout(options.upstream, options.checkout.resolve())
    with contextlib.redirect_stdout(io.StringIO()):  # upstream reports its fusing
        compare(options, settings, parse)


if __name__ == "__main__":
    main()
