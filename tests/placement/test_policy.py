"""The stem's placement, of float networks and of those that hold quantizers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantization.placement.activation_pairs import activation_pairs
from quantization.placement.policy import float_stem
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantOutputConv2d


class Net(nn.Module):
    """A stem and a head, as the placement asks for them."""

    def __init__(self, kernel: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 4, kernel, stride, kernel // 2), act)
        self.model = nn.Sequential(stem, nn.Conv2d(4, 4, 1))
        self.stride = torch.tensor([8.0])

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a map."""
        out: Tensor = self.model(x)
        return out


STEM = {"model.0.0"}


@pytest.mark.parametrize("act", [nn.SiLU(), nn.LeakyReLU(0.1, inplace=True)])
@pytest.mark.parametrize("kernel, stride, large", [(6, 2, True), (3, 2, False), (3, 1, False), (6, 1, False)])
def test_choices_of_the_stem(kernel: int, stride: int, large: bool, act: nn.Module) -> None:
    model = Net(kernel, stride, act).eval()
    leaky = isinstance(act, nn.LeakyReLU)
    paired, none = activation_pairs(model, "stem"), activation_pairs(model, "none")
    assert paired == (STEM if leaky else set()) and none == set()
    assert float_stem(model, "auto", paired) == (STEM if large else set())
    assert float_stem(model, "auto", none) == (STEM if large or (leaky and stride > 1) else set())
    assert float_stem(model, "float", paired) == STEM and float_stem(model, "int8", none) == set()


def test_of_a_network_with_quantizers_without_ranges() -> None:
    """They would refuse to round; afterwards they are on, as before."""
    model = Net(3, 2, nn.LeakyReLU(0.1)).eval()
    convolution = model.model[0][0]
    convolution.__class__ = QuantOutputConv2d
    quantizer.select_backend("native")
    convolution.add_quantizers()
    with pytest.raises(RuntimeError, match="never calibrated"):
        model(torch.zeros(1, 3, 16, 16))
    assert float_stem(model, "auto", set()) == STEM and activation_pairs(model, "stem") == STEM
    assert [quantizer.is_enabled(part) for _, _, _, part in quantizer.named_quantizers(model)] == [True] * 3
