"""What a ranking proposes to leave in float."""

from __future__ import annotations

import itertools

import numpy as np

from quantization.sensitivity.ranking import worst_layers


def records(gains: list[float]) -> list[dict[str, object]]:
    return [{"layer": f"model.{index}", "gain": gain} for index, gain in enumerate(gains)]


def test_the_fewest_layers_that_give_back_half_of_the_loss() -> None:
    """Against all subsets: none with fewer layers gives back as much."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        gains = sorted(generator.normal(0.01, 0.02, 7).tolist(), reverse=True)
        loss = 0.05
        found = worst_layers(records(gains), loss)
        enough = [
            size
            for size in range(8)
            if any(sum(part) >= loss / 2 for part in itertools.combinations([max(gain, 0.0) for gain in gains], size))
        ]
        positive = sum(gain > 0 for gain in gains)
        assert len(found) == (enough[0] if enough else positive)
        assert found == [f"model.{index}" for index in range(len(found))]


def test_nothing_is_proposed_where_quantization_costs_nothing() -> None:
    assert worst_layers(records([0.01, 0.0]), loss=0.0) == []
    assert worst_layers(records([0.01, 0.0]), loss=-0.02) == []
    assert worst_layers(records([-0.01, -0.02]), loss=0.05) == []
