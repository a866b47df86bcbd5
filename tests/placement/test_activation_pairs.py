"""Pairs before activations: which convolutions get one, and what their modules compute, against numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quantization.calibration.calibrate import calibrate_model
from quantization.placement.activation_pairs import (
    activation_pairs,
    convolutions_before,
    image_convolution,
    write_apart,
)
from quantization.placement.scale_groups import shared_groups
from quantization.qat.quantizers import QatQuantizers
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantOutputConv2d
from quantization.sensitivity.units import find_units


class Layers(nn.Module):
    """Convolutions in front of activations of every kind, some of which share one object."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 3, stride=2)
        self.left, self.right, self.smooth, self.alone, self.clipped = (nn.Conv2d(4, 4, 1) for _ in range(5))
        self.act, self.silu, self.relu6, self.swish = shared, nn.SiLU(), nn.ReLU6(), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a map."""
        x = self.act(self.image(x))
        x = self.act(torch.cat((self.left(x), self.right(x))))  # of neither convolution alone
        x = self.relu6(self.clipped(self.silu(self.smooth(x))))
        return self.swish(self.alone(x))


class Net(nn.Module):
    """What the placement asks of an upstream's network."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(Layers(shared))
        self.stride = torch.tensor([8.0])

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a map."""
        out: Tensor = self.model(x)
        return out


def test_which_convolutions() -> None:
    for shared in (nn.LeakyReLU(0.1), nn.LeakyReLU(0.1, inplace=True), nn.ELU(), nn.Mish(), nn.PReLU()):
        model = Net(shared).eval()
        assert activation_pairs(model, "none") == set()
        assert activation_pairs(model, "stem") == {"model.0.image"} == {image_convolution(model)}
        assert activation_pairs(model, "all") == {"model.0.image", "model.0.alone"}
    assert activation_pairs(Net(nn.SiLU()).eval(), "stem") == set()
    assert activation_pairs(Net(nn.ReLU()).eval(), "all") == {"model.0.alone"}
    assert convolutions_before(Net(nn.SiLU()).eval(), (nn.SiLU,)) == {"model.0.image", "model.0.smooth"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_image_that_is_rearranged_first_has_no_convolution() -> None:
    model = Net(nn.LeakyReLU())
    layers = model.model[0]
    layers.image = nn.Conv2d(12, 4, 1)
    assert image_convolution(model) is None


def test_activations_in_place_become_others() -> None:
    model = Net(nn.LeakyReLU(0.1, inplace=True))
    model.model[0].silu.inplace = True
    write_apart(model)
    assert not model.model[0].act.inplace and model.model[0].silu.inplace  # of SiLU's convolution none is quantized


def paired(seed: int = 0) -> QuantOutputConv2d:
    """A convolution with quantizers without ranges."""
    torch.manual_seed(seed)
    convolution = nn.Conv2d(3, 4, 3)
    convolution.__class__ = QuantOutputConv2d
    assert isinstance(convolution, QuantOutputConv2d)
    quantizer.select_backend("native")
    convolution.add_quantizers()
    return convolution


def rounded(x: np.ndarray, amax: np.ndarray) -> np.ndarray:
    """``x`` to the nearest of 256 levels."""
    scale = amax.astype(np.float32) / np.float32(127)
    return np.clip(np.rint(x / scale), -128, 127).astype(np.float32) * scale


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution (B, I, H, W) with (O, I, h, w), without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    return np.einsum("bihwyx,oiyx->bohw", windows, weight, optimize=True) + bias[:, None, None]


def test_calibrated_module_against_numpy() -> None:
    """Input, weight and output are rounded, the output by the range of the float convolution's own output."""
    module = paired()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weight, bias = (part.detach().numpy() for part in (module.weight, module.bias))
    exact = convolved(x.numpy(), weight, bias)
    calibrate_model(module, [x[:1], x[1:]], "max")
    amax = quantizer.get_amax(quantizer.get_quantizer(module, quantizer.OUTPUT_NAME))
    assert amax is not None and np.isclose(float(amax), np.abs(exact).max(), rtol=1e-5)
    quantized = convolved(
        rounded(x.numpy(), np.abs(x.numpy()).max()),
        rounded(weight, np.abs(weight).max((1, 2, 3), keepdims=True)),
        bias,
    )
    with torch.no_grad():
        out = module(x).numpy()
    step = float(amax) / 127
    assert np.allclose(out / step, np.rint(out / step), atol=1e-3)  # multiples of the scale
    assert np.abs(out - rounded(quantized, amax.numpy())).max() < 1.01 * step  # a level, where float rounding differs
    assert (np.abs(out - rounded(quantized, amax.numpy())) > step / 2).mean() < 0.01


def test_gradients_pass_the_pair_inside_its_range_only() -> None:
    module = paired()
    x = torch.rand(1, 3, 6, 6)
    calibrate_model(module, [x], "max")
    output = quantizer.get_quantizer(module, quantizer.OUTPUT_NAME)
    quantizer.set_amax(output, torch.tensor(0.2))
    with quantizer.swapped(module, lambda path, name, part: nn.Identity() if name == quantizer.OUTPUT_NAME else part):
        before = module(x)
    levels = (before.detach() / (0.2 / 127)).round()
    inside = (levels >= -128) & (levels <= 127)
    assert 0.1 < float(inside.float().mean()) < 0.95
    expected = torch.autograd.grad(before, module.weight, inside.float())[0]
    stand_ins = QatQuantizers(module)
    with stand_ins.in_place():
        trained = torch.autograd.grad(module(x).sum(), module.weight)[0]
    assert torch.allclose(trained, expected, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(module(x).sum(), module.weight)[0], expected, atol=1e-5)


def test_a_learned_scale_is_written_back() -> None:
    module = paired()
    calibrate_model(module, [torch.rand(1, 3, 6, 6)], "max")
    output = quantizer.get_quantizer(module, quantizer.OUTPUT_NAME)
    before = quantizer.get_scale(output)
    stand_ins = QatQuantizers(module, learn=True)
    assert len(stand_ins.parameters()) == 3
    with torch.no_grad():
        for parameter in stand_ins.parameters():
            parameter += 0.5
    stand_ins.write_back()
    assert torch.allclose(quantizer.get_scale(output), before * np.exp(0.5))


def test_the_pair_belongs_to_its_convolution() -> None:
    """One unit to leave in float; a scale of its own; its values come back from a state dict."""
    module = paired()
    model = nn.Sequential(module)
    calibrate_model(model, [torch.rand(1, 3, 6, 6)], "max")
    (unit,) = find_units(model)
    assert unit.modules == ("0",) and len(unit.quantizers) == 3
    assert [group.names for group in shared_groups(model)] == [("0",), ("0:out",)]
    unit.set_float(True)
    x = torch.rand(1, 3, 6, 6)
    assert torch.equal(model(x), nn.functional.conv2d(x, module.weight, module.bias))
    unit.set_float(False)
    other = nn.Sequential(paired(1))
    calibrate_model(other, [2 * x], "max")
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
