"""What a usable amax is: its scale is a normal float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantization.quantizers.levels import replace_zeros, usable
from quantization.ranges.levels import LEAST_AMAX, highest_level


def test_a_usable_amax_has_a_normal_scale() -> None:
    tiny = np.finfo(np.float32).tiny  # the smallest normal float32
    values = [0.0, 1e-45, 1e-38, 0.99 * LEAST_AMAX, LEAST_AMAX, 1.0, 3e38, float("inf"), float("nan")]
    amax = torch.tensor(values)
    scale = amax.numpy() / np.float32(127)
    assert usable(amax).tolist() == ((scale >= tiny) & np.isfinite(scale)).tolist()
    assert usable(amax).tolist() == [False] * 4 + [True] * 3 + [False] * 2


def test_what_counts_as_zero_gets_one_and_damage_stays() -> None:
    amax = torch.tensor([[0.0], [LEAST_AMAX / 2], [LEAST_AMAX], [2.5], [float("inf")]])
    assert replace_zeros(amax).flatten().tolist() == [1, 1, float(amax[2]), 2.5, float("inf")]
    assert bool(replace_zeros(torch.tensor(float("nan"))).isnan())


@pytest.mark.parametrize("bits, level", [(8, 127), (5, 15), (4, 7), (2, 1)])
def test_highest_level(bits: int, level: int) -> None:
    assert highest_level(bits) == level == np.iinfo(np.int8).max >> (8 - bits)
