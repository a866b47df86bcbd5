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
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import bundle  # noqa: F401  # puts quantization on the import path

from quantization.cli.options import SensitiveCommand
from quantization.cli.parser import parse
from quantization.errors import run_main
from quantization.upstream.checkout import enter_checkout


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


class Comparison:
    """A quantized network, its units, and the images that both rankings look at.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command sensitive.
        bits: width of all quantizers; the ranges stay those of 8 bits.
    """

    def __init__(self, name: str, options: SensitiveCommand, bits: int) -> None:
        from quantization.cli.preparation import calibrate, prepare
        from quantization.data.tensors import pick_device
        from quantization.evaluation.network import open_checked
        from quantization.placement.policy import choose_placement
        from quantization.quantizers.backend import named_quantizers, set_bits
        from quantization.quantizers.switches import have_quantizers
        from quantization.sensitivity.units import find_units
        from quantization.upstream import checkpoint
        from quantization.upstream.network import torch_network

        self.name, self.options, self.device = name, options, pick_device(options.run.device)
        self.model, _ = checkpoint.load(options.weight, self.device, name)
        self.network = torch_network(name, self.model, options.weight, options.images)
        self.dataset = open_checked(options.images, self.network, train=True).dataset
        if not have_quantizers(self.model):
            placement = choose_placement(self.model, options.placement)
            prepare(self.model, self.dataset, options.images, options.calibration)
            calibrate(self.model, self.dataset, placement, options)
        for _, _, _, quantizer in named_quantizers(self.model):
            set_bits(quantizer, bits)
        self.files, self.units = self.dataset.val[: options.num_image], find_units(self.model)

    def evaluator(self, files: list[str]) -> Callable[[], Any]:
        """Measures the mAP over some of the validation images."""
        from quantization.evaluation.network import make_evaluator
        from quantization.upstream.predictor import torch_predictor

        part = self.dataset.with_val(files)
        made = make_evaluator(self.options.images, self.network, part)
        return lambda: made(torch_predictor(self.model), "", quiet=True)

    def by_sqnr(self, probes: int) -> tuple[list[float], float]:
        """Error energy of each unit, and seconds."""
        from quantization.data.images import Loader
        from quantization.data.tensors import TensorLoader
        from quantization.sensitivity.first_order import Probes, measure

        images = self.options.images
        loader = Loader(self.files, (images.imgsz, images.imgsz), images.batch_size, images.workers)
        warm_up = Loader(self.files[: images.batch_size], loader.size, images.batch_size)
        measure(self.model, self.units, TensorLoader(warm_up, self.device))
        started = time.perf_counter()
        errors = measure(self.model, self.units, TensorLoader(loader, self.device), Probes(probes, images.seed))
        seconds = time.perf_counter() - started
        energies = {id(error.unit): error.energy for error in errors}
        return [energies[id(unit)] for unit in self.units], seconds

    def by_map(self, files: list[str], alone: bool) -> tuple[list[float], float]:
        """Points of mAP that each unit costs, and seconds."""
        evaluate = self.evaluator(files)
        evaluate()  # warm-up
        started = time.perf_counter()
        return sweep(self.model, self.units, evaluate, alone), time.perf_counter() - started


def compare(comparison: Comparison, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both; a dictionary of the figures."""
    from scipy.stats import spearmanr

    from quantization.sensitivity.first_order import decibels

    alone, files = options.sweep == "alone", comparison.files
    energy, sqnr_seconds = comparison.by_sqnr(options.probes)
    costs, sweep_seconds = comparison.by_map(files, alone)
    result = {
        "units": len(comparison.units),
        "images": len(files),
        "bits": options.bits,
        "sweep": options.sweep,
        "probes": options.probes,
        "sqnr_seconds": sqnr_seconds,
        "sweep_seconds": sweep_seconds,
        "ratio": sweep_seconds / sqnr_seconds,
        "spearman": float(spearmanr(energy, costs).statistic),
        "table": [
            {"modules": list(unit.modules), "sqnr_db": decibels(value), "points": cost}
            for unit, value, cost in zip(comparison.units, energy, costs)
        ],
    }
    if options.halves:
        first, second = (comparison.by_map(part, alone)[0] for part in (files[::2], files[1::2]))
        result["spearman_of_halves"] = float(spearmanr(first, second).statistic)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two rankings of the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=("yolov5", "yolov7"), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="folder of the upstream's code")
    parser.add_argument("--sweep", choices=("left-in-float", "alone"), default="left-in-float")
    parser.add_argument("--bits", type=int, default=8, help="width of all quantizers, with the amax found for 8 bits")
    parser.add_argument("--probes", type=int, default=1, help="backward passes per batch")
    parser.add_argument(
        "--halves", action="store_true", help="how well the sweep agrees with itself (takes as long again)"
    )
    parser.add_argument("--json", type=Path, help="write the figures and the table here")
    parser.add_argument("rest", nargs="+", metavar="-- ARGUMENT", help="arguments of the command sensitive")
    options = parser.parse_args(arguments)
    words = [os.path.abspath(word) if os.path.exists(word) else word for word in options.rest]
    _, settings = parse(options.upstream, ["sensitive", *words])
    assert isinstance(settings, SensitiveCommand)
    output = options.json.resolve() if options.json else None
    enter_checkout(options.upstream, options.checkout.resolve())
    with contextlib.redirect_stdout(io.StringIO()):  # upstream reports its fusing
        result = compare(Comparison(options.upstream, settings, options.bits), options)
    for key, value in result.items():
        if key != "table":
            print(f"{key:18s} {value:.3g}" if isinstance(value, float) else f"{key:18s} {value}")
    if output:
        output.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    run_main(main)
