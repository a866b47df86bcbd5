"""The SQNR of units against brute force, on small networks; units, policies and files of the ranking."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quantization.calibration.calibrate import calibrate_model
from quantization.errors import UserError
from quantization.placement import scale_groups as rules
from quantization.placement.policy import ignore_policy, policy_line
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantAdd, QuantBottleneck, QuantConv2d, QuantUpsample
from quantization.quantizers.switches import disable_quantization
from quantization.sensitivity.first_order import Probes, UnitError, measure
from quantization.sensitivity.plot import draw_ranking
from quantization.sensitivity.ranking import worst_units, write_units
from quantization.sensitivity.units import Unit, find_units
from quantization.upstream.outputs import LEAST_ENERGY, flatten, raw_outputs, weigh


class Head(nn.Module):
    """Raw maps in training mode, one decoded tensor otherwise, as upstream's heads."""

    nl = 2

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.ModuleList(nn.Conv2d(12, 6, 1) for _ in range(2))

    def forward(self, maps: list[torch.Tensor]) -> object:
        raw = [conv(part) for conv, part in zip(self.m, maps)]
        return raw if self.training else torch.cat([part.flatten(2).sigmoid() for part in raw], 2)


class Bottleneck(nn.Module):
    add = True

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = nn.Sequential(nn.Conv2d(12, 12, 1), nn.SiLU(inplace=True))
        self.cv2 = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.SiLU(inplace=True))


class Detector(nn.Module):
    """Convolutions with in-place activations, a shared tensor, a shortcut, an Upsample and two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.SiLU(inplace=True))
        self.left = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.SiLU(inplace=True))
        self.right = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.LeakyReLU(0.1, inplace=True))
        self.block = Bottleneck()
        self.down = nn.Sequential(nn.Conv2d(24, 12, 3, 2, 1), nn.SiLU(inplace=True))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = nn.Sequential(nn.Conv2d(24, 12, 1), nn.SiLU(inplace=True))
        self.model = nn.ModuleList([nn.Identity(), Head()])

    def forward(self, x: torch.Tensor) -> object:
        x = self.stem(x)
        left, right = self.left(x), self.block(self.right(x))
        low = self.down(torch.cat((left, right), 1))
        return self.model[-1]([self.merge(torch.cat((self.up(low), right), 1)), low])


GROUPS = [
    rules.ScaleGroup((("left.0", "_input_quantizer"), ("right.0", "_input_quantizer"))),
    rules.ScaleGroup((("block.cv1.0", "_input_quantizer"), ("block.addop", "_input0_quantizer"))),
]
BITS = {"stem.0": 4, "left.0": 7, "down.0": 5, "merge.0": 8}


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(8, 3, 32, 32, generator=generator) for _ in range(4)]


@pytest.fixture
def model(images: list[torch.Tensor]) -> nn.Module:
    """Quantized with widths that differ, calibrated by the largest value."""
    torch.manual_seed(1)
    quantizer.select_backend("native")
    net = Detector()
    for path, module in net.named_modules():
        target = {nn.Conv2d: QuantConv2d, nn.Upsample: QuantUpsample, Bottleneck: QuantBottleneck}.get(type(module))
        if target is not None and not path.startswith("model."):
            module.__class__ = target
            module.add_quantizers()
    rules.share_quantizers(net, GROUPS)
    calibrate_model(net, images, "max")
    for path, _, _, place in quantizer.named_quantizers(net):
        quantizer.set_bits(place, BITS.get(path, 6))
    return net.eval()


def brute_force(model: nn.Module, units: list[Unit], images: list[torch.Tensor]) -> list[float]:
    """One unit on at a time: error energy of the raw maps in parts of theirs, each map alike."""
    outputs = raw_outputs(model)
    energies = []
    with torch.no_grad():
        with disable_quantization(model):
            exact = [[part.numpy() for part in outputs(batch)] for batch in images]
        for unit in units:
            with disable_quantization(model):
                unit.set_float(False)
                parts = [
                    [
                        np.square(part.numpy() - truth).sum() / np.square(truth).sum()
                        for part, truth in zip(outputs(batch), maps)
                    ]
                    for batch, maps in zip(images, exact)
                ]
            energies.append(float(np.mean(parts)))
    return energies


def test_units_are_groups_with_their_weights_and_whole_blocks(model: nn.Module) -> None:
    units = {unit.modules[0]: unit for unit in find_units(model)}
    assert {name: unit.modules for name, unit in units.items() if len(unit.modules) > 1} == {
        "left.0": ("left.0", "right.0"),
        "block.cv1.0": ("block.cv1.0", "block.cv2.0", "block"),
    }
    assert set(units) == {"stem.0", "left.0", "block.cv1.0", "down.0", "up", "merge.0"}
    assert len(units["left.0"].quantizers) == 3  # one for the input, two for the weights
    assert units["left.0"].quantizers[0] is model.left[0]._input_quantizer
    assert len(units["block.cv1.0"].quantizers) == 5  # cv1 and the shortcut share one
    assert len(units["up"].quantizers) == 1
    model.up._input_quantizer.disable()
    assert "up" not in {str(unit) for unit in find_units(model)}


def test_energies_equal_brute_force(model: nn.Module, images: list[torch.Tensor]) -> None:
    units = find_units(model)
    errors = measure(model, units, images, Probes(count=8))
    found = {str(error.unit): error.energy for error in errors}
    expected = brute_force(model, units, images)
    ours = [found[str(unit)] for unit in units]
    assert np.corrcoef(np.log(ours), np.log(expected))[0, 1] > 0.99
    # 256 samples: a standard error of 9 %, and what first order leaves out
    np.testing.assert_allclose(ours, expected, rtol=0.35)
    assert max(expected) > 30 * min(expected)  # a correlation means something
    assert [error.energy for error in errors] == sorted(ours, reverse=True)
    assert sum(error.share for error in errors) == pytest.approx(1)
    assert errors[0].sqnr_db == pytest.approx(-10 * np.log10(errors[0].energy))


def test_one_linear_layer_is_exact_in_the_limit() -> None:
    """Without anything behind the layer, v^T delta is drawn from N(0, |delta|^2)."""
    torch.manual_seed(0)
    quantizer.select_backend("native")
    conv = QuantConv2d(3, 4, 1)
    conv.add_quantizers()
    quantizer.set_amax(conv._input_quantizer, torch.tensor(1.0))
    quantizer.set_amax(conv._weight_quantizer, conv.weight.detach().abs().amax((1, 2, 3), keepdim=True))
    net = nn.Sequential(conv)
    batch = torch.rand(64, 3, 8, 8)
    with torch.no_grad():
        quantized = net(batch)
        with disable_quantization(net):
            exact = net(batch)
    expected = float((quantized - exact).square().sum() / exact.square().sum())
    (error,) = measure(net, find_units(net), [batch], Probes(count=100), lambda x: [net(x)])
    assert error.energy == pytest.approx(expected, rel=0.05)  # 6400 samples: a standard error of 1.8 %


def test_same_seed_same_result_and_the_model_stays(model: nn.Module, images: list[torch.Tensor]) -> None:
    units = find_units(model)
    with torch.no_grad():
        before = model(images[0])
    first, again, other = (
        [error.energy for error in measure(model, units, images, Probes(seed=seed))] for seed in (3, 3, 4)
    )
    assert first == again != other
    with torch.no_grad():
        assert torch.equal(model(images[0]), before)
    assert not any(
        module.training or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules()
    )
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(unit.quantizers[0]._disabled for unit in units)


def test_bad_input_is_refused(model: nn.Module, images: list[torch.Tensor]) -> None:
    with pytest.raises(UserError, match="no images"):
        measure(model, find_units(model), [])
    with pytest.raises(UserError, match="NaN or infinite"):
        measure(model, find_units(model), [torch.full_like(images[0], float("nan"))])
    assert not model.model[-1].training


def test_raw_outputs_leave_auxiliary_maps_out() -> None:
    class Auxiliary(nn.Module):
        nl = 2

        def forward(self, x: torch.Tensor) -> object:
            return [x, x + 1, x + 2, x + 3] if self.training else x

    net = nn.Module()
    net.model = nn.ModuleList([Auxiliary()])
    net.forward = net.model[0].forward
    assert [float(part) for part in raw_outputs(net)(torch.zeros(()))] == [0, 1]
    assert [float(part) for part in flatten(([torch.tensor(1), torch.tensor(2)], torch.tensor(3)))] == [1, 2, 3]


def decoded(maps: list[np.ndarray], anchors: np.ndarray) -> np.ndarray:
    """Boxes (x, y, w, h) in cells, objectness and classes as upstream's heads decode them: (B, predictions, 5 + C)."""
    parts = []
    for level, part in enumerate(maps):
        batch, count, height, width, numbers = part.shape
        y = 1 / (1 + np.exp(-part))
        cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
        y[..., :2] = 2 * y[..., :2] - 0.5 + cells
        y[..., 2:4] = (2 * y[..., 2:4]) ** 2 * anchors[level].reshape(count, 1, 1, 2)
        parts.append(y.reshape(batch, -1, numbers))
    return np.concatenate(parts, 1)


def test_weighted_outputs_are_scores_and_relative_moves_of_boxes() -> None:
    rng = np.random.default_rng(0)
    anchors = rng.uniform(1, 4, (2, 3, 2))
    shapes = [(2, 3, 4, 5, 7), (2, 3, 2, 3, 7)]
    maps, step = ([rng.normal(size=shape) for shape in shapes] for _ in range(2))
    parts = [torch.tensor(part, requires_grad=True) for part in maps]
    scores, boxes, other = weigh([*parts, torch.zeros(2, 1)], torch.tensor(anchors), 2)
    before = decoded(maps, anchors)
    expected = before[..., 4:5] * before[..., 5:]
    np.testing.assert_allclose(scores.detach().numpy(), expected.reshape(2, -1), rtol=1e-5)
    weight = expected.max(-1, keepdims=True)
    np.testing.assert_allclose(
        boxes.detach().numpy(), np.broadcast_to(weight, (*weight.shape[:2], 4)).reshape(2, -1), rtol=1e-5
    )
    # the derivative along `step`, against differences of decoded boxes
    _, moved = torch.autograd.functional.jvp(
        lambda *levels: weigh(levels, torch.tensor(anchors), 2, 100.0)[1],
        tuple(part.detach() for part in parts),
        tuple(torch.tensor(part) for part in step),
    )
    small = 1e-5
    after = decoded([part + small * change for part, change in zip(maps, step)], anchors)
    change = (
        np.concatenate(((after - before)[..., :2] / before[..., 2:4], np.log(after[..., 2:4] / before[..., 2:4])), -1)
        / small
    )
    np.testing.assert_allclose(moved.numpy() / 10, (weight * change).reshape(2, -1), rtol=1e-2, atol=1e-3)
    assert other.shape == (2, 1)


def errors_of(*energies: float) -> list[UnitError]:
    return [
        UnitError(Unit((f"model.{index}.conv", f"model.1{index}"), (), ()), energy, energy / sum(energies))
        for index, energy in enumerate(energies)
    ]


def test_proposal_and_files(tmp_path: Path) -> None:
    errors = errors_of(6e-4, 3e-4, 1e-4, 0.0)
    assert [unit.modules[0] for unit in worst_units(errors)] == ["model.0.conv"]
    assert len(worst_units(errors, 0.8)) == 2 and len(worst_units(errors, 1.0)) == 3
    policy = ignore_policy(errors[0].unit.modules)
    assert policy_line(policy) == r"--ignore-policy 'model\.0\.conv' 'model\.10'"
    summary, picture = tmp_path / "ranking.json", tmp_path / "ranking.png"
    write_units(errors, 64, policy, str(summary))
    draw_ranking(str(summary), str(picture))
    content = json.loads(summary.read_text())
    assert content["sqnr_db"] == pytest.approx(30) and content["images"] == 64
    assert [unit["sqnr_db"] for unit in content["units"][:1]] == [pytest.approx(-10 * np.log10(6e-4))]
    assert content["units"][3]["sqnr_db"] == pytest.approx(-10 * np.log10(LEAST_ENERGY))
    assert picture.stat().st_size > 5_000


def test_policies_match_whole_modules_and_name_blocks_once() -> None:
    policy = ignore_policy(["model.2.m.0.cv1.conv", "model.2.m.0", "model.2.m.01"])
    assert policy == [r"model\.2\.m\.0", r"model\.2\.m\.01"]
    assert not re.fullmatch(policy[0], "model.2.m.01") and not re.fullmatch(policy[0], "model_2.m.0")


def test_a_sum_outside_a_block_is_named_itself() -> None:
    quantizer.select_backend("native")
    net = nn.ModuleDict({"total": QuantAdd()})
    assert [unit.modules for unit in find_units(net)] == [("total",)]
