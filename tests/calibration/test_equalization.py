"""Equalization: the same function, like ranges, and only the channels that may be scaled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from torch import Tensor, nn

from quantization.calibration.equalization import LEAST, POWER, equalize, find_channels
from support.workflow import run_task


class Head(nn.Module):
    """Two maps, each from a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.ModuleList([nn.Conv2d(12, 7, 1), nn.Conv2d(8, 7, 1)])
        self.nl = 2

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [convolution(part) for convolution, part in zip(self.m, maps)]


class Net(nn.Module):
    """Every way to pass a channel on that matters: Concat, pool, Upsample, a sum, SiLU, a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.down = nn.Conv2d(6, 8, 3, 2, 1)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.smooth, self.after_smooth = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 8, 1)
        self.before_sum, self.after_sum = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.model = nn.ModuleList([Head()])
        self.leaky, self.relu = nn.LeakyReLU(0.1), nn.ReLU(inplace=True)
        self.pool, self.up = nn.MaxPool2d(3, 1, 1), nn.Upsample(scale_factor=2)

    def forward(self, images: Tensor) -> Any:
        stem = self.leaky(self.stem(images))
        x = self.relu(self.down(stem))
        joined = torch.cat((self.leaky(self.left(x)), self.pool(self.leaky(self.right(x)))), 1)
        smooth = self.leaky(self.after_smooth(nn.functional.silu(self.smooth(self.up(joined)[:, :6]))))
        total = smooth + self.leaky(self.before_sum(smooth))
        last = self.leaky(self.depthwise(self.leaky(self.after_sum(total))))
        return self.model[-1]([joined, last])


# all that depends on them is read by convolutions with one group, and through the ReLU family alone
FREE = {"stem", "down", "left", "right", "depthwise"}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # channels of very different ranges
            module.weight.data *= torch.logspace(-0.3, 0.3, module.out_channels).view(-1, 1, 1, 1)
    return model


def test_free_channels(net: Net) -> None:
    channels = find_channels(net, torch.rand(1, 3, 32, 32))
    names = {module: name for name, module in net.named_modules()}
    free = {
        names[module]: channels.free[begin : begin + module.out_channels] for module, begin in channels.first.items()
    }
    assert {name for name, part in free.items() if part.all()} == FREE
    assert not any(part.any() for name, part in free.items() if name not in FREE)
    left, right = channels.first[net.left], channels.first[net.right]
    assert channels.read[net.model[0].m[0]].tolist() == [*range(left, left + 6), *range(right, right + 6)]
    assert channels.read[net.smooth].tolist() == [*range(left, left + 6)]
    assert (channels.read[net.after_smooth] == -1).all() and (channels.read[net.depthwise] == -1).all()


def test_the_function_stays_and_the_ranges_come_together(net: Net) -> None:
    images = torch.rand(4, 3, 32, 32)

    def ranges() -> Tensor:
        with torch.no_grad():
            x = net.leaky(net.stem(images))
        return x.abs().amax((0, 2, 3))

    with torch.no_grad():
        before, narrow = net(images), ranges()
        count = equalize(net, [images])
        after, wide = net(images), ranges()
    assert count == sum(net.get_submodule(name).out_channels for name in FREE)
    for old, new in zip(before, after):
        torch.testing.assert_close(old, new, rtol=1e-4, atol=1e-5)
    ratio = narrow.max() / narrow
    assert 5 < ratio.max() < 1 / LEAST
    torch.testing.assert_close(wide.max() / wide, ratio ** (1 - POWER), rtol=1e-4, atol=1e-4)


def test_nothing_to_do(net: Net) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert equalize(net, []) == 0
    net.leaky, net.relu = nn.SiLU(), nn.ELU()
    assert equalize(net, [torch.rand(1, 3, 32, 32)]) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_damaged_net_is_left_alone(net: Net) -> None:
    net.down.bias.data[0] = float("nan")
    before = net.stem.weight.clone()
    assert equalize(net, [torch.rand(1, 3, 32, 32)]) == 0 and torch.equal(net.stem.weight, before)


def test_relu6_and_softplus_are_not_scaled(net: Net) -> None:
    for activation in (nn.ReLU6(), nn.Softplus(), nn.Mish(), nn.Hardswish(), nn.GELU()):
        net.leaky, net.relu = activation, activation
        assert equalize(net, [torch.rand(1, 3, 32, 32)]) == 0, activation


@pytest.mark.parametrize(
    "upstream, weight, expected", [("yolov7", "random_yolov7_tiny", True), ("yolov5", None, False)]
)
def test_upstream_nets(
    checkouts: Callable[[str], Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    upstream: str,
    weight: str,
    expected: bool,
) -> None:
    checkout = checkouts(upstream)
    if weight:
        file = request.getfixturevalue(weight)
    else:
        file = tmp_path / "random.pt"
        run_task(checkout, "make_random", "models/yolov5n.yaml", file, 6)
    result = run_task(checkout, "equalized", upstream, file)
    assert (result["scaled"] > 0) == expected
    assert result["difference"] < 1e-4 * result["largest"]
    if expected:  # every convolution of yolov7-tiny but the detect convolutions
        assert result["scaled"] == result["channels"] - result["head"]
