"""Searches for the range of a histogram: squared error, entropy, percentile.

Histograms are of magnitudes. The lowest level, -highest - 1, which negative values alone reach, is left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Sequence

import numpy as np

from quantization.ranges.levels import BITS, highest_level

NUM_BINS = 2048


def first_candidate(bits: int = BITS) -> int:
    """Bins of the narrowest range that is tried; below it there would be less than one bin per level."""
    return highest_level(bits) + 1


def _level_boundaries(amax: np.ndarray, num_bins: int, bits: int) -> np.ndarray:
    """First bin of every level for every candidate amax, in bins: (K,) to (K, L + 2); the last is the number of bins.

    With the highest level L, the scale is amax / L bins. Bin j, at j + 1/2, rounds to level round((j + 1/2) / scale), so
    level k begins at the first j with (j + 1/2) >= (k - 1/2) * scale. Whether a centre on a boundary rounds up or down
    does not change its squared error.
    """
    highest = highest_level(bits)
    level = np.arange(1, highest + 1) - 0.5  # (L,)
    first = np.ceil(level[None] * amax[:, None] / highest - 0.5).clip(0, num_bins).astype(np.int64)  # (K, L)
    zero, end = np.zeros_like(first[:, :1]), np.full_like(first[:, :1], num_bins)
    return np.concatenate((zero, first, end), 1)  # (K, L + 2)


def _prefix_sums(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Sums of the first 0, 1, ... B bins: R rows (B,) to (R, B + 1)."""
    return np.pad(np.cumsum(np.stack(rows), 1), ((0, 0), (1, 0)))


def squared_errors(
    counts: np.ndarray, amax: np.ndarray, bits: int = BITS, boundaries: np.ndarray | None = None
) -> np.ndarray:
    """Squared quantization error of a histogram at each candidate amax, in squared bins.

    sum over bins of counts * (level * scale - centre)^2, which per level is q^2 * S0 - 2 q * S1 + S2 with the sums of
    counts, counts * centre and counts * centre^2 over the bins of the level.

    Args:
        counts: (B,).
        amax: (K,) float64, in bins.
        bits: width of the integers.
        boundaries: ``_level_boundaries`` of these, if at hand.

    Returns:
        (K,) float64.
    """
    if boundaries is None:
        boundaries = _level_boundaries(amax, len(counts), bits)
    centres = np.arange(len(counts)) + 0.5
    highest = highest_level(bits)
    scale = amax / highest
    level = np.arange(highest + 1, dtype=np.float64)
    prefix = _prefix_sums((counts, counts * centres))
    total, first = np.diff(prefix[:, boundaries], axis=2)  # (K, L + 1) each
    square = (counts * centres * centres).sum()
    # level * (level * total * scale^2 - 2 * first * scale), summed over levels as two products
    return square + scale * (scale * (total @ (level * level)) - 2 * (first @ level))


@lru_cache(maxsize=4)
def _mse_candidates(num_bins: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The centres of all bins from ``first_candidate`` on, in bins, and their level boundaries."""
    amax = np.arange(first_candidate(bits), num_bins) + 0.5  # (K,)
    return amax, _level_boundaries(amax, num_bins, bits)


def mse_errors(counts: np.ndarray, bits: int = BITS) -> np.ndarray:
    """``squared_errors`` of each candidate range: (H, B), one histogram per row, to (H, B - first_candidate)."""
    amax, boundaries = _mse_candidates(counts.shape[1], bits)
    return np.stack([squared_errors(row, amax, bits, boundaries) for row in counts])


def mse_index(counts: np.ndarray, bits: int = BITS) -> np.ndarray:
    """Bin whose centre is the amax with the smallest squared error: (H, B) to (H,)."""
    return mse_errors(counts, bits).argmin(1) + first_candidate(bits)


@lru_cache(maxsize=4)
def _entropy_boundaries(num_bins: int, bits: int) -> np.ndarray:
    """First bin of each of the L + 1 levels when i bins are kept, (K, L + 2), for i = first_candidate, ... B."""
    levels = highest_level(bits) + 1
    kept = np.arange(first_candidate(bits), num_bins + 1, dtype=np.float64)  # (K,)
    edge = np.arange(levels + 1, dtype=np.float64)
    return np.ceil(edge[None] * kept[:, None] / levels - 1e-9).astype(np.int64)  # (K, L + 2)


def _x_log_x(x: np.ndarray) -> np.ndarray:
    """X * log(x), 0 where x is 0."""
    return x * np.log(np.where(x > 0, x, 1.0))


def entropy_divergences(counts: np.ndarray, bits: int = BITS) -> np.ndarray:
    """Kullback-Leibler divergence of each candidate range, in nats, as in TensorRT's entropy calibration.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017. With the first i bins kept, P is the histogram with
    the outliers added to its last bin, and Q spreads the mass of each level over its bins that are not empty.

    Args:
        counts: (H, B), one histogram per row.
        bits: width of the integers; 8 have 128 levels from zero up.

    Returns:
        (H, B - first_candidate + 1): the candidates keep first_candidate, ... B bins; infinite where P has mass that Q
        cannot have.
    """
    rows, num_bins = counts.shape
    boundaries = _entropy_boundaries(num_bins, bits)  # (K, L + 2)
    kept = boundaries[:, -1]  # (K,)
    result = np.empty((rows, len(kept)))
    for row, c in enumerate(counts):
        prefix = _prefix_sums((c, c > 0, _x_log_x(c)))  # (3, B + 1)
        mass, occupied = np.diff(prefix[:2][:, boundaries], axis=2)  # (K, L + 1)
        total, kept_mass = c.sum(), prefix[0][kept]
        outliers = total - kept_mass  # (K,)
        last = c[kept - 1]
        # sum of p log p with unnormalised p; the last bin holds the outliers too
        p_log_p = prefix[2][kept] - _x_log_x(last) + _x_log_x(last + outliers)
        log_q = np.log(np.where(mass > 0, mass / np.maximum(occupied, 1), 1.0))
        p_log_q = (mass * log_q).sum(1) + outliers * log_q[:, -1]
        with np.errstate(divide="ignore"):  # nothing is kept: the last bin is empty then, and outliers are not
            # normalise both: KL = sum p/N (log p/N - log q/M) = (sum p log p - sum p log q) / N - log N + log M
            divergence = (p_log_p - p_log_q) / total - np.log(total) + np.log(kept_mass)
        result[row] = np.where((last == 0) & (outliers > 0), np.inf, divergence)
    return result


def entropy_index(counts: np.ndarray, bits: int = BITS) -> np.ndarray:
    """Number of bins to keep for the smallest divergence: (H, B) to (H,)."""
    return entropy_divergences(counts, bits).argmin(1) + first_candidate(bits)


def percentile_index(counts: np.ndarray, percentile: float) -> int:
    """First bin up to which ``percentile`` percent of the values lie: (B,) to an index."""
    share = np.cumsum(counts) / counts.sum()
    return min(int(np.searchsorted(share, percentile / 100)), len(counts) - 1)
