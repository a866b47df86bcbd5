"""Searches for the range of a histogram: squared error, entropy, percentile.

Histograms are of magnitudes. The lowest level, -highest - 1, which negative values alone reach, is left out.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from quantization.quantizers.levels import BITS, highest_level

NUM_BINS = 2048


def first_candidate(bits: int = BITS) -> int:
    """Bins of the narrowest range that is tried; below it there would be less than one bin per level."""
    return highest_level(bits) + 1


def channel_amax(weight: Tensor) -> Tensor:
    """The largest magnitude of each output channel, (C, ...) to (C, 1, ...), in float32; NaN where there is one."""
    return weight.detach().abs().float().amax(dim=tuple(range(1, weight.dim())), keepdim=True)


def _level_boundaries(amax: Tensor, num_bins: int, bits: int) -> Tensor:
    """First bin of every level for every candidate amax, in bins: (K,) to (K, L + 2); the last is the number of bins.

    With the highest level L, the scale is amax / L bins. Bin j, at j + 1/2, rounds to level round((j + 1/2) / scale), so
    level k begins at the first j with (j + 1/2) >= (k - 1/2) * scale. Whether a centre on a boundary rounds up or down
    does not change its squared error.
    """
    highest = highest_level(bits)
    level = torch.arange(1, highest + 1, dtype=torch.float64, device=amax.device) - 0.5  # (L,)
    first = torch.ceil(level[None] * amax[:, None] / highest - 0.5).clamp(0, num_bins).long()  # (K, L)
    zero, end = torch.zeros_like(first[:, :1]), torch.full_like(first[:, :1], num_bins)
    return torch.cat((zero, first, end), 1)  # (K, L + 2)


def squared_errors(counts: Tensor, amax: Tensor, bits: int = BITS, boundaries: Tensor | None = None) -> Tensor:
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
    counts = counts.double()
    if boundaries is None:
        boundaries = _level_boundaries(amax, counts.numel(), bits)
    centres = torch.arange(counts.numel(), dtype=torch.float64, device=counts.device) + 0.5
    highest = highest_level(bits)
    scale = amax / highest
    level = torch.arange(highest + 1, dtype=torch.float64, device=counts.device)
    prefix = torch.nn.functional.pad(torch.stack((counts, counts * centres)).cumsum(1), (1, 0))  # (2, B + 1)
    total, first = prefix[:, boundaries].diff(dim=2).unbind()  # (K, L + 1) each
    square = (counts * centres * centres).sum()
    # level * (level * total * scale^2 - 2 * first * scale), summed over levels as two products
    return square + scale * (scale * (total @ (level * level)) - 2 * (first @ level))


@lru_cache(maxsize=4)
def _mse_candidates(num_bins: int, bits: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The centres of all bins from ``first_candidate`` on, in bins, and their level boundaries."""
    amax = torch.arange(first_candidate(bits), num_bins, dtype=torch.float64, device=device) + 0.5  # (K,)
    return amax, _level_boundaries(amax, num_bins, bits)


def mse_errors(counts: Tensor, bits: int = BITS) -> Tensor:
    """``squared_errors`` of each candidate range: (H, B), one histogram per row, to (H, B - first_candidate)."""
    amax, boundaries = _mse_candidates(counts.shape[1], bits, counts.device)
    return torch.stack([squared_errors(row, amax, bits, boundaries) for row in counts])


def mse_index(counts: Tensor, bits: int = BITS) -> Tensor:
    """Bin whose centre is the amax with the smallest squared error: (H, B) to (H,)."""
    return mse_errors(counts, bits).argmin(1) + first_candidate(bits)


@lru_cache(maxsize=4)
def _entropy_boundaries(num_bins: int, bits: int, device: torch.device) -> Tensor:
    """First bin of each of the L + 1 levels when i bins are kept, (K, L + 2), for i = first_candidate, ... B."""
    levels = highest_level(bits) + 1
    kept = torch.arange(first_candidate(bits), num_bins + 1, dtype=torch.float64, device=device)  # (K,)
    edge = torch.arange(levels + 1, dtype=torch.float64, device=device)
    return torch.ceil(edge[None] * kept[:, None] / levels - 1e-9).long()  # (K, L + 2)


def entropy_divergences(counts: Tensor, bits: int = BITS) -> Tensor:
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
    counts = counts.double()
    boundaries = _entropy_boundaries(num_bins, bits, counts.device)  # (K, L + 2)
    kept = boundaries[:, -1]  # (K,)
    result = torch.empty(rows, len(kept), dtype=torch.float64, device=counts.device)
    for row in range(rows):
        c = counts[row]
        sums = torch.stack((c, (c > 0).double(), torch.xlogy(c, c)))
        prefix = torch.nn.functional.pad(sums.cumsum(1), (1, 0))  # (3, B + 1)
        mass, occupied = prefix[:2][:, boundaries].diff(dim=2).unbind()  # (K, L + 1)
        total, kept_mass = c.sum(), prefix[0][kept]
        outliers = total - kept_mass  # (K,)
        last = c[kept - 1]
        # sum of p log p with unnormalised p; the last bin holds the outliers too
        p_log_p = prefix[2][kept] - torch.xlogy(last, last) + torch.xlogy(last + outliers, last + outliers)
        log_q = torch.where(mass > 0, torch.log(mass / occupied.clamp(min=1)), torch.zeros_like(mass))
        p_log_q = (mass * log_q).sum(1) + outliers * log_q[:, -1]
        # normalise both: KL = sum p/N (log p/N - log q/M) = (sum p log p - sum p log q) / N - log N + log M
        divergence = (p_log_p - p_log_q) / total - torch.log(total) + torch.log(kept_mass)
        result[row] = torch.where((last == 0) & (outliers > 0), torch.full_like(divergence, float("inf")), divergence)
    return result


def entropy_index(counts: Tensor, bits: int = BITS) -> Tensor:
    """Number of bins to keep for the smallest divergence: (H, B) to (H,)."""
    return entropy_divergences(counts, bits).argmin(1) + first_candidate(bits)


def percentile_index(counts: Tensor, percentile: float) -> int:
    """First bin up to which ``percentile`` percent of the values lie: (B,) to an index."""
    share = counts.cumsum(0) / counts.sum()
    target = torch.tensor(percentile / 100, dtype=share.dtype, device=share.device)
    return min(int(torch.searchsorted(share, target)), counts.numel() - 1)
