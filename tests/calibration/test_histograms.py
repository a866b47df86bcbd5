"""Calibrators against a few lines of numpy that do the same by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from quantization.calibration.histograms import HistogramCalibrator, MaxCalibrator, compute_amax_all, make_calibrator
from quantization.calibration.observation import SAMPLES, observe
from quantization.calibration.range_search import FIRST_CANDIDATE, entropy_divergences, mse_errors


def histograms(bins: int) -> torch.Tensor:
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
    return torch.tensor(np.stack([np.histogram(v, bins, (0, v.max()))[0] for v in values]), dtype=torch.float64)


def brute_mse(counts: np.ndarray) -> np.ndarray:
    centres = np.arange(len(counts)) + 0.5
    errors = []
    for amax in centres[FIRST_CANDIDATE:]:
        scale = amax / 127
        errors.append((counts * (np.clip(np.round(centres / scale), -128, 127) * scale - centres) ** 2).sum())
    return np.array(errors)


def brute_entropy(counts: np.ndarray) -> np.ndarray:
    result = []
    for kept in range(FIRST_CANDIDATE, len(counts) + 1):
        level = np.digitize(np.arange(kept), np.linspace(0, kept, 129)) - 1
        p = counts[:kept].copy()
        q = np.zeros(kept)
        for number in range(128):
            filled = (level == number) & (p > 0)
            if filled.any():
                q[filled] = p[filled].sum() / filled.sum()
        p[-1] += counts[kept:].sum()
        result.append(entropy(p, q))
    return np.array(result)


def test_mse_search_equals_brute_force() -> None:
    counts = histograms(2048)
    errors = mse_errors(counts).numpy()
    for row in range(len(counts)):
        expected = brute_mse(counts[row].numpy())
        np.testing.assert_allclose(errors[row], expected, rtol=1e-9)
        assert errors[row].argmin() == expected.argmin()


def test_entropy_search_equals_brute_force() -> None:
    counts = histograms(512)
    divergences = entropy_divergences(counts).numpy()
    for row in range(len(counts)):
        expected = brute_entropy(counts[row].numpy())
        assert (np.isfinite(expected) == np.isfinite(divergences[row])).all()
        finite = np.isfinite(expected)
        np.testing.assert_allclose(divergences[row][finite], expected[finite], atol=1e-12)
        assert divergences[row].argmin() == expected.argmin()


def test_histogram_equals_numpy_and_doubling_loses_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    small, large = torch.randn(4, 3, 8, 8, generator=generator), 5 * torch.randn(4, 3, 8, 8, generator=generator)
    calibrator = HistogramCalibrator("mse")
    calibrator.collect(small)
    first = float(small.abs().max())
    calibrator.collect(large)
    assert calibrator.range == first * 2 ** np.ceil(np.log2(float(large.abs().max()) / first))
    both = np.abs(np.concatenate((small.numpy().ravel(), large.numpy().ravel())))
    expected, _ = np.histogram(both, 2048, (0, calibrator.range))
    # a value on a bin's edge may fall to either side in float32
    assert np.abs(np.cumsum(expected) - np.cumsum(calibrator.counts.numpy())).max() <= 2
    assert calibrator.counts.sum() == both.size


def quantization_error(values: np.ndarray, amax: float) -> float:
    scale = amax / 127
    return float(((np.clip(np.round(values / scale), -128, 127) * scale - values) ** 2).sum())


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
        calibrator.collect(x)
        if len(whole) == 1:
            assert calibrator.range == whole[0].max()
        for part in x.flatten().split(100_000):
            exact.collect(part)
    everything = np.concatenate(whole)
    assert calibrator.range >= everything.max()
    assert float(calibrator.counts.sum()) == pytest.approx(everything.size)
    sampled, best = (quantization_error(everything, float(one.compute_amax())) for one in (calibrator, exact))
    assert sampled <= 1.03 * best  # the optimum is flat, but a sample of a heavy tail is noisy


def test_percentile() -> None:
    values = torch.linspace(0, 1, 100_001)[1:]
    calibrator = HistogramCalibrator("percentile", percentile=90)
    calibrator.collect(values)
    assert float(calibrator.compute_amax()) == pytest.approx(np.percentile(values.numpy(), 90), abs=1 / 2048)


@pytest.mark.parametrize("axis, shape", [(None, ()), (0, (5, 1, 1, 1))])
def test_max(axis: int | None, shape: tuple) -> None:
    a, b = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    calibrator = MaxCalibrator(axis)
    calibrator.collect(a)
    calibrator.collect(b)
    both = np.abs(np.stack((a.numpy(), b.numpy())))
    expected = both.max() if axis is None else both.max((0, 2, 3, 4)).reshape(shape)
    assert calibrator.compute_amax().shape == shape
    np.testing.assert_array_equal(calibrator.compute_amax().numpy(), expected)


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile", "max"])
def test_all_at_once_equals_one_by_one(method: str) -> None:
    generator = torch.Generator().manual_seed(1)
    calibrators = {}
    for number in range(4):
        calibrators[str(number)] = make_calibrator(method)
        calibrators[str(number)].collect((number + 1) * torch.randn(20_000, generator=generator))
    calibrators["never"] = make_calibrator(method)
    together = compute_amax_all(calibrators)
    assert together.pop("never") is None
    for name, amax in together.items():
        torch.testing.assert_close(amax, calibrators[name].compute_amax())


def test_zeros_and_damaged_tensors() -> None:
    for method in ("mse", "max"):
        calibrator = make_calibrator(method)
        calibrator.collect(torch.zeros(10))
        assert float(calibrator.compute_amax()) == 1.0  # any scale is exact for zeros; TensorRT refuses 0
        with pytest.raises(ValueError, match="NaN"):
            calibrator.collect(torch.tensor([1.0, float("nan")]))
    calibrator = HistogramCalibrator()
    calibrator.collect(torch.ones(3))
    calibrator.reset()
    assert calibrator.compute_amax() is None
