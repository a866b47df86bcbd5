"""The scale of a group against brute force, and the bookkeeping of distinct tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.group_ranges import Collector, GroupCalibrator
from quantization.calibration.joining import end_batch
from quantization.calibration.observation import collect_tensor
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d
from quantization.ranges.group_scales import group_scales, joint_histogram, least_error_amax
from quantization.ranges.histograms import HistogramCalibrator


def collected(tensors: list[torch.Tensor], method: str = "mse", bits: int = 8) -> GroupCalibrator:
    calibrator = GroupCalibrator(method, bits)
    for number, tensor in enumerate(tensors):
        calibrator.collect(tensor, f"conv{number}")
    end_batch([calibrator])
    return calibrator


@pytest.fixture
def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(50_000, generator=generator),
        3 * torch.randn(20_000, generator=generator),
        torch.nn.functional.silu(0.3 * torch.randn(30_000, generator=generator)),
    ]


def relative_error(tensor: np.ndarray, amax: float, bits: int = 8) -> float:
    highest = 2 ** (bits - 1) - 1
    scale = amax / highest
    error = np.clip(np.round(tensor / scale), -highest - 1, highest) * scale - tensor
    return float((error**2).sum() / (tensor**2).sum())


@pytest.mark.parametrize("bits, slack", [(8, 1.01), (4, 1.05)])  # of 4 bits, the lowest level matters
def test_least_error_is_what_numpy_finds_on_the_values(tensors: list[torch.Tensor], bits: int, slack: float) -> None:
    chosen = least_error_amax(collected(tensors, bits=bits).tensors)
    candidates = np.linspace(0.5, 14, 500)
    sums = [sum(relative_error(tensor.numpy(), amax, bits) for tensor in tensors) for amax in candidates]
    here = sum(relative_error(tensor.numpy(), chosen, bits) for tensor in tensors)
    assert here <= min(sums) * slack  # the histogram knows values to half a bin only


def test_choices(tensors: list[torch.Tensor]) -> None:
    calibrator = collected(tensors)
    own = [float(tensor.compute_amax()) for tensor in calibrator.tensors]
    scales = {choice: group_scales({"g": calibrator}, choice)["g"] for choice in ("error", "joint", "max")}
    assert scales["max"].amax == pytest.approx(max(own))
    assert scales["error"].amax == pytest.approx(least_error_amax(calibrator.tensors))
    joint = HistogramCalibrator("mse")
    collect_tensor(joint, torch.cat(tensors))
    assert scales["joint"].amax == pytest.approx(float(joint.compute_amax()), rel=0.02)
    assert scales["error"].own == pytest.approx(own) and scales["error"].ratio == pytest.approx(max(own) / min(own))
    # what sharing costs is the ratio of the errors, here measured on the values themselves
    for index, tensor in enumerate(tensors):
        values = tensor.numpy()
        cost = 10 * np.log10(relative_error(values, scales["max"].amax) / relative_error(values, own[index]))
        assert scales["max"].cost_db[index] == pytest.approx(cost, abs=0.3)


def test_joint_histogram_keeps_every_count(tensors: list[torch.Tensor]) -> None:
    joint = joint_histogram(collected(tensors).tensors)
    assert joint.counts.sum() == sum(tensor.numel() for tensor in tensors)
    values = np.abs(torch.cat(tensors).numpy())
    expected, _ = np.histogram(values, 2048, (0, joint.range))
    assert np.abs(np.cumsum(expected) - np.cumsum(joint.counts)).max() < 0.01 * len(values)


def test_a_tensor_counts_once_however_many_read_it() -> None:
    calibrator = GroupCalibrator("mse")
    readers = [Collector(calibrator, place) for place in ("a", "b", "c")]
    for _ in range(2):  # two batches
        x, y = torch.rand(10), torch.rand(20)
        assert readers[0](x) is x and readers[1](x) is x and readers[2](y) is y
        end_batch([calibrator])
    assert calibrator.readers == [["a", "b"], ["c"]]
    assert [float(tensor.counts.sum()) for tensor in calibrator.tensors] == [20, 40]


def test_one_tensor_needs_no_agreement(tensors: list[torch.Tensor]) -> None:
    calibrator = collected(tensors[:1])
    for choice in ("error", "joint", "max"):
        scale = group_scales({"g": calibrator}, choice)["g"]
        assert scale.amax == float(calibrator.tensors[0].compute_amax()) and scale.advice() is None
    assert group_scales({"g": GroupCalibrator("mse")})["g"] is None


def test_maximum_and_dead_tensors() -> None:
    scale = group_scales({"g": collected([torch.ones(5), 9 * torch.ones(5)], "max")})["g"]
    assert scale.amax == 9 and scale.cost_db == []
    assert "9.0-fold" in scale.advice() and "conv0" in scale.advice()
    for method in ("mse", "max"):
        for zero in (0.0, 1e-40):  # any scale is exact for zeros: the others set it, also if it is below 1
            dead = group_scales({"g": collected([torch.full((5,), zero), torch.full((5,), 0.01)], method)})["g"]
            assert dead.amax == pytest.approx(0.01, rel=0.01) and dead.own[0] == dead.amax and dead.advice() is None
        nothing = group_scales({"g": collected([torch.zeros(5), torch.zeros(5)], method)})["g"]
        assert nothing.amax == 1 and nothing.own == [1, 1] and nothing.advice() is None


def test_warning_names_the_loser(tensors: list[torch.Tensor]) -> None:
    scale = group_scales({"g": collected([20 * tensors[0], tensors[2]])}, "joint")["g"]
    assert scale.ratio > 4 and "conv1" in scale.advice() and "dB" in scale.advice()


def test_calibrate_model_leaves_quantizers_in_place() -> None:
    quantizer.select_backend("native")
    torch.manual_seed(0)
    model = nn.Sequential(QuantConv2d(3, 4, 1), nn.SiLU(), QuantConv2d(4, 4, 1))
    for module in model:
        if isinstance(module, QuantConv2d):
            module.add_quantizers()
    unused = QuantConv2d(4, 4, 1)
    unused.add_quantizers()
    model[0].unused = unused
    before = [place[3] for place in quantizer.named_quantizers(model)]
    batches = [torch.rand(2, 3, 8, 8) for _ in range(3)]
    assert calibrate_model(model, batches, "max") == []
    assert [place[3] for place in quantizer.named_quantizers(model)] == before
    assert float(quantizer.get_quantizer(model[0]).amax) == float(torch.stack(batches).max())
    with torch.no_grad():  # the second layer is calibrated on float values
        weight, bias = model[0].weight, model[0].bias
        hidden = torch.nn.functional.silu(torch.nn.functional.conv2d(torch.cat(batches), weight, bias))
    assert float(quantizer.get_quantizer(model[2]).amax) == pytest.approx(float(hidden.abs().max()), rel=1e-6)
    assert not quantizer.is_enabled(quantizer.get_quantizer(unused)) and quantizer.is_enabled(
        quantizer.get_quantizer(model[2])
    )


@pytest.mark.parametrize("method", ["mse", "sqnr", "entropy"])
def test_a_narrow_quantizer_gets_a_narrow_range(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The width is the quantizer's own: less error on the values than with the range for 8 bits."""
    quantizer.select_backend("native")
    monkeypatch.setattr("quantization.calibration.calibrate.weighted_outputs", lambda net, weight: lambda x: [net(x)])
    x = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    error = {}
    for bits in (4, 8):
        model: Any = nn.Sequential(QuantConv2d(4, 4, 1))
        model.stride = torch.ones(1)  # as a network of the upstreams has
        model[0].add_quantizers()
        quantizer.set_bits(quantizer.get_quantizer(model[0]), bits)
        calibrate_model(model, [x], method)
        amax = float(quantizer.get_amax(quantizer.get_quantizer(model[0])))
        error[bits] = relative_error(x.numpy(), amax, 4)
    assert error[4] < 0.9 * error[8]
