"""Calibrators against a few lines of numpy that do the same by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from quantization.calibration.observation import collect_tensor, observe
from quantization.ranges.histograms import (
    SAMPLES,
    HistogramCalibrator,
    MaxCalibrator,
    compute_amax_all,
    make_calibrator,
)
from quantization.ranges.levels import LEAST_AMAX
from quantization.ranges.range_search import entropy_divergences, mse_errors


def histograms(bins: int) -> np.ndarray:
    """Shapes as activations have them: (6, bins)."""
    generator = np.random.default_rng(0)
    values = [
        np.abs(generator.normal(size=50_000)),
        generator.exponential(size=50_000),
        generator.random(50_000),
        np.maximum(generator.normal(size=50_000), 0),
        np.abs(generator.standard_cauchy(50_000)).clip(0, 400),
        np.concatenate((generator.random(9_000), [40.0])),
    ]
    return np.stack([np.histogram(v, bins, (0, v.max()))[0] for v in values]).astype(np.float64)


def brute_mse(counts: np.ndarray, bits: int) -> np.ndarray:
    centres, highest = np.arange(len(counts)) + 0.5, 2 ** (bits - 1) - 1
    errors = []
    for amax in centres[highest + 1 :]:
        scale = amax / highest
        levels = np.clip(np.round(centres / scale), -highest - 1, highest)
        errors.append((counts * (levels * scale - centres) ** 2).sum())
    return np.array(errors)


def brute_entropy(counts: np.ndarray, bits: int) -> np.ndarray:
    result, levels = [], 2 ** (bits - 1)
    for kept in range(levels, len(counts) + 1):
        level = np.digitize(np.arange(kept), np.linspace(0, kept, levels + 1)) - 1
        p = counts[:kept].copy()
        q = np.zeros(kept)
        for number in range(levels):
            filled = (level == number) & (p > 0)
            if filled.any():
                q[filled] = p[filled].sum() / filled.sum()
        p[-1] += counts[kept:].sum()
        result.append(entropy(p, q))
    return np.array(result)


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_search_equals_brute_force(bits: int) -> None:
    counts = histograms(2048)
    errors = mse_errors(counts, bits)
    for row in range(len(counts)):
        expected = brute_mse(counts[row], bits)
        np.testing.assert_allclose(errors[row], expected, rtol=1e-9)
        assert errors[row].argmin() == expected.argmin()


@pytest.mark.parametrize("bits", [4, 8])
def test_entropy_search_equals_brute_force(bits: int) -> None:
    counts = histograms(512)
    divergences = entropy_divergences(counts, bits)
    for row in range(len(counts)):
        expected = brute_entropy(counts[row], bits)
        assert (np.isfinite(expected) == np.isfinite(divergences[row])).all()
        finite = np.isfinite(expected)
        np.testing.assert_allclose(divergences[row][finite], expected[finite], atol=1e-12)
        assert divergences[row].argmin() == expected.argmin()


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_the_chosen_range_is_the_best_on_the_values(bits: int) -> None:
    """What the histogram of magnitudes knows is enough: the error is that of the best range, found by trying."""
    generator = torch.Generator().manual_seed(0)
    for x in (torch.randn(30_000, generator=generator).relu(), torch.rand(30_000, generator=generator)):
        values = x.numpy()
        calibrator = HistogramCalibrator("mse", bits=bits)
        collect_tensor(calibrator, x)
        best = min(quantization_error(values, amax, bits) for amax in np.linspace(0.05, 1, 400) * values.max())
        assert quantization_error(values, calibrator.compute_amax(), bits) <= 1.01 * best


def test_histogram_equals_numpy_and_doubling_loses_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    small, large = torch.randn(4, 3, 8, 8, generator=generator), 5 * torch.randn(4, 3, 8, 8, generator=generator)
    calibrator = HistogramCalibrator("mse")
    collect_tensor(calibrator, small)
    first = float(small.abs().max())
    collect_tensor(calibrator, large)
    assert calibrator.range == first * 2 ** np.ceil(np.log2(float(large.abs().max()) / first))
    both = np.abs(np.concatenate((small.numpy().ravel(), large.numpy().ravel())))
    expected, _ = np.histogram(both, 2048, (0, calibrator.range))
    # a value on a bin's edge may fall to either side in float32
    assert np.abs(np.cumsum(expected) - np.cumsum(calibrator.counts)).max() <= 2
    assert calibrator.counts.sum() == both.size


def quantization_error(values: np.ndarray, amax: float, bits: int = 8) -> float:
    highest = 2 ** (bits - 1) - 1
    scale = amax / highest
    return float(((np.clip(np.round(values / scale), -highest - 1, highest) * scale - values) ** 2).sum())


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "a slice"])
def test_a_sample_stands_for_a_large_tensor(layout: str) -> None:
    """Channels and columns of different magnitude, so that a sample that misses some shows; four batches."""
    generator = torch.Generator().manual_seed(0)
    calibrator, exact, whole = HistogramCalibrator("mse"), HistogramCalibrator("mse"), []
    for _ in range(4):
        x = torch.randn(2, 24, 160, 160, generator=generator)
        x *= torch.arange(1, 25).view(-1, 1, 1) * torch.linspace(0.1, 1, 160)
        if layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        elif layout == "a slice":
            x = torch.stack((x, x + 1000))[0, :, 1:]
        whole.append(np.abs(x.numpy()))
        values = observe(x).values
        assert SAMPLES / 2 < len(values) <= SAMPLES < x.numel() / 4
        for share in (0.1, 0.5, 0.9, 0.999):
            assert np.quantile(values.numpy(), share) == pytest.approx(np.quantile(whole[-1], share), rel=0.02)
        collect_tensor(calibrator, x)
        if len(whole) == 1:
            assert calibrator.range == whole[0].max()
        for part in x.flatten().split(100_000):
            collect_tensor(exact, part)
    everything = np.concatenate(whole)
    assert calibrator.range >= everything.max()
    assert float(calibrator.counts.sum()) == pytest.approx(everything.size)
    sampled, best = (quantization_error(everything, float(one.compute_amax())) for one in (calibrator, exact))
    assert sampled <= 1.03 * best  # the optimum is flat, but a sample of a heavy tail is noisy


def test_percentile() -> None:
    values = torch.linspace(0, 1, 100_001)[1:]
    calibrator = HistogramCalibrator("percentile", percentile=90)
    collect_tensor(calibrator, values)
    assert float(calibrator.compute_amax()) == pytest.approx(np.percentile(values.numpy(), 90), abs=1 / 2048)


def test_max() -> None:
    a, b = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    calibrator = MaxCalibrator()
    assert calibrator.compute_amax() is None
    collect_tensor(calibrator, a)
    collect_tensor(calibrator, b)
    assert calibrator.compute_amax() == np.abs(np.stack((a.numpy(), b.numpy()))).max()


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile", "max"])
def test_all_at_once_equals_one_by_one(method: str) -> None:
    generator = torch.Generator().manual_seed(1)
    calibrators = {}
    for number in range(4):
        calibrators[str(number)] = make_calibrator(method)
        collect_tensor(calibrators[str(number)], (number + 1) * torch.randn(20_000, generator=generator))
    calibrators["never"] = make_calibrator(method)
    together = compute_amax_all(calibrators)
    assert together.pop("never") is None
    for name, amax in together.items():
        assert amax == calibrators[name].compute_amax()


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile", "max"])
def test_zeros_denormals_and_damaged_tensors(method: str) -> None:
    for largest in (0.0, 1e-40, LEAST_AMAX / 2):  # no scale is a normal float32
        calibrator = make_calibrator(method)
        collect_tensor(calibrator, largest * torch.ones(10))
        assert calibrator.compute_amax() == 0
        collect_tensor(calibrator, 3 * torch.ones(10_000))
        assert calibrator.compute_amax() == pytest.approx(3, rel=0.01)
        for damaged in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="NaN"):
                collect_tensor(calibrator, torch.tensor([1.0, damaged]))
    tail = make_calibrator(method)
    collect_tensor(tail, 1.5 * LEAST_AMAX * torch.linspace(0, 1, 9_999) ** 8)  # mostly below
    assert tail.compute_amax() == 0 or tail.compute_amax() >= LEAST_AMAX
