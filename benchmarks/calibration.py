r"""What calibration costs: the search for the ranges, and the collection of histograms.

    python benchmarks/calibration.py [--histograms 71] [--device cuda:0]
    python benchmarks/calibration.py --upstream yolov7 --checkout path/to/yolov7 --net cfg/training/yolov7.yaml \
        --batch-size 16 --device cuda:0

The first form times the MSE search over all candidate ranges, against the same search as a loop over the candidates,
as pytorch-quantization's histogram calibrator does it: one fake quantization of the bin centres for each of the 1,920
candidates. Both give the same amax.

The second form times the collection of a network's histograms next to the float network's forward pass over the same
images, and the choice of all its ranges; then a whole calibration by SQNR. The network has random weights and the images
are noise. Ratios are of one run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import bundle  # noqa: F401  # puts quantization on the import path
import numpy as np
import torch
from architectures import CLASSES, CONFIGURATIONS
from random_net import quantized_copy, random_net
from turns import machine, take_turns

from quantization.calibration import calibrate
from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.observation import collect_tensor
from quantization.ranges.histograms import HistogramCalibrator, compute_amax_all
from quantization.ranges.range_search import NUM_BINS, first_candidate


def loop_index(counts: np.ndarray) -> int:
    """The best candidate's bin, one candidate at a time: (B,) counts."""
    centres = np.arange(NUM_BINS) + 0.5
    errors = []
    for candidate in centres[first_candidate() :]:
        scale = candidate / 127
        quantized = (centres / scale).round().clip(-128, 127) * scale
        errors.append(float(((quantized - centres) ** 2 * counts).sum()))
    return first_candidate() + min(range(len(errors)), key=errors.__getitem__)


def search(options: argparse.Namespace) -> None:
    """Print seconds of the search for all ranges at once and one candidate at a time."""
    generator = torch.Generator().manual_seed(0)
    calibrators: dict[str, HistogramCalibrator] = {}
    for number in range(options.histograms):
        calibrators[str(number)] = HistogramCalibrator("mse")
        activations = torch.nn.functional.silu((1 + number % 7) * torch.randn(100_000, generator=generator))
        collect_tensor(calibrators[str(number)], activations)
    compute_amax_all({"0": calibrators["0"]})  # the level boundaries, made once per process
    start = time.perf_counter()
    amax = compute_amax_all({**calibrators})
    vectorised = time.perf_counter() - start
    equal, start = 0, time.perf_counter()
    for name, calibrator in calibrators.items():
        best = amax[name]
        assert calibrator.counts is not None and best is not None  # it has collected
        expected = (loop_index(calibrator.counts) + 0.5) * calibrator.range / NUM_BINS
        equal += abs(float(best) - expected) < 1e-6
    loop = time.perf_counter() - start
    print(f"numpy {np.__version__}, {options.histograms} histograms of {NUM_BINS} bins")
    print(f"vectorised {vectorised:.3f} s, loop {loop:.2f} s: ratio {loop / vectorised:.0f}; equal amax: {equal}")


def collection(options: argparse.Namespace) -> None:
    """Print seconds of a calibration of one network, and of its parts."""
    os.chdir(options.checkout)
    from quantization.upstream.checkout import enter_checkout

    enter_checkout(options.upstream, Path.cwd())
    from quantization.upstream import model as upstream

    model = upstream.fuse(random_net(options.net, CLASSES)).to(options.device).eval()
    student = quantized_copy(model)
    shape = (options.batch_size, 3, options.imgsz, options.imgsz)
    batches = [torch.rand(shape, device=options.device) for _ in range(options.batches)]
    choices: list[float] = []
    choose = calibrate.group_scales

    def timed_choice(*arguments: Any) -> Any:
        begin = time.perf_counter()
        scales = choose(*arguments)  # gives plain numbers, so it has waited for the GPU
        choices.append(time.perf_counter() - begin)
        return scales

    def forward() -> None:
        with torch.no_grad():
            for images in batches:
                model(images)

    with mock.patch.object(calibrate, "group_scales", timed_choice):
        timings = take_turns(
            {"float": forward, "calibration": lambda: calibrate_model(student, batches)}, options.rounds
        )
    timings.update(take_turns({"sqnr": lambda: calibrate_model(student, batches, "sqnr")}, options.rounds))
    ranges = statistics.median(choices[1:])
    collecting = timings["calibration"].seconds - ranges
    print(
        f"{machine()}, {options.net}, random weights, {options.batches} batches of {options.batch_size}, "
        f"{options.imgsz} px, fp32, {options.rounds} rounds\n"
        f"float forward {timings['float']}\ncalibration   {timings['calibration']}, of which all ranges by MSE "
        f"{1000 * ranges:.0f} ms\ncollection {collecting / timings['float'].seconds:.2f} times the float forward\n"
        f"by SQNR       {timings['sqnr']}"
    )


def main() -> None:
    """Run the form that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histograms", type=int, default=71, help="71: yolov5s without shared scales")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--upstream", choices=sorted(CONFIGURATIONS))
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--net", help="configuration file, relative to the checkout")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=25, help="25 is the default of quantize")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.net is None:
        search(options)
    elif options.upstream is None or options.checkout is None:
        parser.error("--net needs --upstream and --checkout")
    else:
        collection(options)


if __name__ == "__main__":
    main()
