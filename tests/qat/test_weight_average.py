"""The moving average of the weights against its recursion in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantization.qat.weight_average import WeightAverage


def test_average_equals_the_recursion_and_the_weights_come_back() -> None:
    rng = np.random.default_rng(0)
    weights = [torch.zeros(3), torch.zeros(2, 2)]
    average = WeightAverage(weights, 0.9)
    expected = [np.zeros(3), np.zeros((2, 2))]
    for step in range(1, 201):
        decay = min(0.9, step / (step + 10))
        for index, weight in enumerate(weights):
            weight.copy_(torch.from_numpy(rng.normal(size=tuple(weight.shape))))
            expected[index] = decay * expected[index] + (1 - decay) * weight.double().numpy()
        average.update()
    last = [weight.clone() for weight in weights]
    with pytest.raises(RuntimeError, match="evaluation failed"):
        with average.applied():
            for weight, value in zip(weights, expected):
                np.testing.assert_allclose(weight.numpy(), value, atol=1e-6)
            raise RuntimeError("evaluation failed")
    for weight, value in zip(weights, last):
        assert torch.equal(weight, value)
