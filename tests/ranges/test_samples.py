"""Samples of arrays against those that torch takes of tensors, and against torch.histc."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantization.calibration.observation import collect_tensor, largest_magnitudes, observe
from quantization.ranges.histograms import SAMPLES, HistogramCalibrator
from quantization.ranges.samples import ArraySample


def sampled(x: np.ndarray, parts: int) -> ArraySample:
    sample = ArraySample(x.size)
    for part in np.split(x, parts):
        sample.add(part)
    return sample


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (6, 16, 80, 80)])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_sample_is_what_torch_observes(shape: tuple[int, ...], parts: int) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    sample, observed = sampled(x, parts), observe(torch.from_numpy(x))
    assert (x.size > 4 * SAMPLES) == (shape[1] == 16)  # one is small, of the other every n-th value is taken
    assert sample.weight == observed.weight
    assert [sample.largest] == largest_magnitudes([observed])
    for reach in (sample.largest, 0.7 * sample.largest, 3.0):
        reach = float(np.float32(reach))
        np.testing.assert_array_equal(sample.histogram(2048, reach), observed.histogram(2048, reach).numpy())


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile"])
def test_histograms_of_arrays_and_tensors_give_one_range(method: str) -> None:
    ours, theirs = HistogramCalibrator(method), HistogramCalibrator(method)
    for number in range(3):  # the second batch is wider: the range doubles
        x = np.random.default_rng(number).normal(size=(4, 24, 64, 64)).astype(np.float32) * (1 + 4 * (number == 1))
        sample = sampled(x, 4)
        ours.reach(sample.largest)
        ours.count(sample)
        collect_tensor(theirs, torch.from_numpy(x))
    assert ours.range == theirs.range
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    assert ours.compute_amax() == theirs.compute_amax()


def test_nan_in_any_part_is_kept() -> None:
    for place in (0, -1):
        x = np.ones((2, 8), np.float32)
        x[place, place] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            HistogramCalibrator().reach(sampled(x, 2).largest)
