"""SQNR next to the mAP sweep over the same units and images: seconds of each, and how well their rankings agree.

    python benchmarks/sensitivity.py --upstream yolov5 --checkout path/to/yolov5 -- best.pt --cocodir data --imgsz 160

What follows ``--`` goes to the command ``sensitive``. The sweep measures the mAP once for each unit: with that unit
alone in float (as published) or, with ``--sweep alone``, with that unit alone quantized, which is what the SQNR
describes.

An mAP over few images is noisy, and a ranking cannot agree with noise: ``--halves`` repeats the sweep on either half of
the images and tells how well the two halves agree with one another. ``--bits`` makes the errors larger than the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.data.tensors import TensorLoader
from quantization.quantize import equalize_channels, insert_and_calibrate
from quantization.upstream.predictor import torch_predictor


def sweep(model: Any, units: Sequence[Any], evaluate: Callable[[], Any], alone: bool) -> list[float]:
    """Points of mAP@0.5:0.95 that each unit costs."""
    from quantization.quantizers.switches import disable_quantization

    def with_state(changed: Sequence[Any], others: Sequence[Any]) -> float:
        for unit in others:
            unit.set_float(alone)
        for unit in changed:
            unit.set_float(not alone)
        return 100 * float(evaluate().map)

    if alone:
        with disable_quantization(model):
            baseline = 100 * float(evaluate().map)
    else:
        baseline = with_state([], units)
    costs = [with_state([unit], [other for other in units if other is not unit]) - baseline for unit in units]
    for unit in units:
        unit.set_float(False)
    return [-cost for cost in costs] if alone else costs


def compare(options: argparse.Namespace, settings: argparse.Namespace) -> Any:
    """Measure both; a dictionary of the figures."""
    from scipy.stats import spearmanr

    from quantization.calibration.calibrate import calibrate_model
    from quantization.cli import commands
    from quantization.data.images import Loader, open_dataset
    from quantization.data.tensors import training_sample
    from quantization.quantizers.backend import set_bits
    from quantization.quantizers.levels import BITS
    from quantization.quantizers.switches import have_quantizers, quantizers_of
    from quantization.sensitivity import first_order as sqnr
    from quantization.upstream import checkpoint
    from quantization.upstream import model as upstream

    device = commands.pick_device(settings.device)
    dataset = open_dataset(settings.cocodir, settings.data)
    model, _ = checkpoint.load(settings.weight, device, options.upstream)
    if not have_quantizers(model):
        equalize_channels(model, dataset, settings)
        insert_and_calibrate(model, dataset, settings)
    if options.bits != BITS:
        for quantizer in quantizers_of(model):
            set_bits(quantizer, options.bits)
        sample = training_sample(dataset, settings, settings.calib_batches * settings.batch_size)
        calibrate_model(model, TensorLoader(sample, device), settings.calib_method, len(sample), settings.group_scale)
    files = dataset.val[: settings.num_image]
    units = sqnr.find_units(model)

    def evaluator(part: list[str]) -> Callable[[], Any]:
        dataset.val = part
        made = commands.make_evaluator(
            options.upstream, settings, dataset, upstream.class_count(model), int(model.stride.max())
        )
        return lambda: made(torch_predictor(model), "", quiet=True)

    loader = Loader(files, (settings.imgsz, settings.imgsz), settings.batch_size, settings.workers)
    warm_up = Loader(files[: settings.batch_size], loader.size, settings.batch_size)
    sqnr.measure(model, units, TensorLoader(warm_up, device))
    started = time.perf_counter()
    errors = sqnr.measure(model, units, TensorLoader(loader, device), None, options.probes, settings.seed)
    sqnr_seconds = time.perf_counter() - started
    energies = {id(error.unit): error.energy for error in errors}
    energy = [energies[id(unit)] for unit in units]

    evaluate = evaluator(files)
    evaluate()  # warm-up
    started = time.perf_counter()
    costs = sweep(model, units, evaluate, options.sweep == "alone")
    sweep_seconds = time.perf_counter() - started
    result = {
        "units": len(units),
        "images": len(files),
        "bits": options.bits,
        "sweep": options.sweep,
        "probes": options.probes,
        "sqnr_seconds": sqnr_seconds,
        "sweep_seconds": sweep_seconds,
        "ratio": sweep_seconds / sqnr_seconds,
        "spearman": float(spearmanr(energy, costs).statistic),
        "table": [
            {"modules": list(unit.modules), "sqnr_db": sqnr.decibels(value), "points": cost}
            for unit, value, cost in zip(units, energy, costs)
        ],
    }
    if options.halves:
        first, second = (
            sweep(model, units, evaluator(part), options.sweep == "alone") for part in (files[::2], files[1::2])
        )
        result["spearman_of_halves"] = float(spearmanr(first, second).statistic)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=("yolov5", "yolov7"), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--sweep", choices=("left-in-float", "alone"), default="left-in-float")
    parser.add_argument("--bits", type=int, default=8, help="width of all quantizers")
    parser.add_argument("--probes", type=int, default=1, help="backward passes a batch")
    parser.add_argument("--halves", action="store_true", help="how well the sweep agrees with itself (as long again)")
    parser.add_argument("--json", type=Path, help="write the figures and the table here")
    parser.add_argument("rest", nargs="+", metavar="-- ARGUMENT", help="arguments of the command sensitive")
    options = parser.parse_args()
    from quantization.cli import parser as cli
    from quantization.upstream.checkout import enter_checkout

    settings = cli.build_parser(options.upstream).parse_args(["sensitive", *options.rest])
    settings.weight = os.path.abspath(settings.weight)
    output = options.json.resolve() if options.json else None
    enter_checkout(options.upstream, options.checkout.resolve())
    with contextlib.redirect_stdout(io.StringIO()):  # upstream reports its fusing
        result = compare(options, settings)
    for key, value in result.items():
        if key != "table":
            print(f"{key:18s} {value:.3g}" if isinstance(value, float) else f"{key:18s} {value}")
    if output:
        output.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
