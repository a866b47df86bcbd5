"""Time of the MSE search over all candidate ranges, against the same search as a loop over the candidates.

    python benchmarks/calibration.py [--histograms 71] [--device cuda:0]

The loop is what pytorch-quantization's histogram calibrator does: one fake quantization of the bin centres for each of
the 1,920 candidates. Both give the same amax; the ratio is of one run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from quantization.calib import FIRST_CANDIDATE, NUM_BINS, HistogramCalibrator, compute_amax_all


def loop_index(counts: torch.Tensor) -> int:
    """The best candidate's bin, one candidate at a time: (B,) counts."""
    centres = torch.arange(NUM_BINS, dtype=torch.float64, device=counts.device) + 0.5
    errors = []
    for candidate in centres[FIRST_CANDIDATE:]:
        scale = candidate / 127
        quantized = (centres / scale).round().clamp(-128, 127) * scale
        errors.append(float(((quantized - centres) ** 2 * counts).sum()))
    return FIRST_CANDIDATE + min(range(len(errors)), key=errors.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histograms", type=int, default=71, help="71: yolov5s without shared scales")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    calibrators = {}
    for number in range(options.histograms):
        calibrators[str(number)] = HistogramCalibrator("mse")
        activations = torch.nn.functional.silu((1 + number % 7) * torch.randn(100_000, generator=generator))
        calibrators[str(number)].collect(activations.to(options.device))
    compute_amax_all({"0": calibrators["0"]})  # the level boundaries, made once a process
    start = time.perf_counter()
    amax = compute_amax_all(calibrators)
    vectorised = time.perf_counter() - start
    start = time.perf_counter()
    index = {name: loop_index(calibrator.counts) for name, calibrator in calibrators.items()}
    loop = time.perf_counter() - start
    equal = sum(abs(float(amax[name]) - (index[name] + 0.5) * calibrators[name].range / NUM_BINS) < 1e-6
                for name in calibrators)
    print(f"torch {torch.__version__}, {options.device}, {options.histograms} histograms of {NUM_BINS} bins")
    print(f"vectorised {vectorised:.3f} s, loop {loop:.2f} s: ratio {loop / vectorised:.0f}; equal amax: {equal}")


if __name__ == "__main__":
    main()
