"""Ranges by the error in the detections, against products and sums written out, and against the net's own outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

from quantization import progress_bar
from quantization.calibration import gradient_ranges
from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.gradient_ranges import BINS, GradientHistogram, GroupProbe, best_amax, fill, halved
from quantization.calibration.group_ranges import GroupCalibrator, detection_scales
from quantization.calibration.joining import end_batch
from quantization.errors import UserError
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d
from quantization.ranges.group_scales import group_scales
from quantization.upstream.outputs import frozen_parameters, raw_outputs


def rounded(x: np.ndarray, amax: float, bits: int = 8) -> np.ndarray:
    """Integers and back."""
    highest = 2 ** (bits - 1) - 1
    scale = amax / highest
    return np.clip(np.round(x / scale), -highest - 1, highest) * scale


def filled(x: torch.Tensor, slopes: torch.Tensor, bits: int = 8) -> GradientHistogram:
    histogram = GradientHistogram(float(x.abs().max()), bits)
    histogram.add(x, slopes)
    return histogram


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_error_is_the_product_of_gradient_and_rounding(layout: torch.memory_format) -> None:
    """Image by image where much is cut off; elsewhere on average, since a bin at a boundary may round either way."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.silu(3 * torch.randn(60, 8, 16, 16, generator=generator))
    slopes = torch.randn(60, 8, 16, 16, generator=generator)
    slopes[0] = 0
    histogram = filled(x, slopes.contiguous(memory_format=layout))
    for amax in (3.0, 8.0, 12.0):  # the largest value is about 13
        delta = rounded(x.numpy(), amax) - x.numpy()
        expected = (slopes.numpy() * delta).sum((1, 2, 3), dtype=np.float64)
        found = histogram.errors(torch.tensor([amax], dtype=torch.float64))[0]
        assert found[0] == 0 and histogram.energy(amax) == pytest.approx((expected**2).mean(), rel=0.2)
        if amax == 3:
            np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("piece", [7, 1000])
def test_rows_are_sums_of_gradients(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, however many values are counted at once; values beyond the range go to the last bin, zeros nowhere."""
    monkeypatch.setattr(gradient_ranges, "PIECE", piece)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 100, generator=generator).round(decimals=1)
    slopes = torch.randn(40, 100, generator=generator)
    histogram = GradientHistogram(2.0)
    histogram.add(x, slopes)
    assert (x == 0).any() and (x.abs() > 2).any() and len(histogram.rows) == 40
    for values, gradients, row in zip(x.numpy(), slopes.numpy(), histogram.rows):
        bins = np.minimum((np.abs(values) * np.float32(BINS / 2)).astype(np.int64), BINS - 1)
        expected = np.bincount(bins, np.sign(values) * gradients, BINS)
        np.testing.assert_array_equal(row.numpy(), expected)


def test_values_that_the_outputs_need_widen_the_range() -> None:
    """The same values; the gradient is at the small ones, or at the large ones."""
    x = torch.randn(8, 20_000, generator=torch.Generator().manual_seed(0))
    large = (x.abs() > 3).float()
    narrow, wide = (best_amax([filled(x, x * mask)]) for mask in (1 - large, large))
    assert narrow < 3.5 < wide


@pytest.mark.parametrize("bits", [4, 8])
def test_shared_range_is_the_best_of_all_for_the_sum(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(200, 2_000, generator=generator), 2 * torch.randn(200, 1_000, generator=generator)]
    slopes = [torch.randn(x.shape, generator=generator) for x in tensors]
    chosen = best_amax([filled(x, slope, bits) for x, slope in zip(tensors, slopes)])

    def error(amax: float) -> float:
        parts = [
            (slope.numpy() * (rounded(x.numpy(), amax, bits) - x.numpy())).sum(1, dtype=np.float64)
            for x, slope in zip(tensors, slopes)
        ]
        return float((sum(parts) ** 2).mean())

    assert error(chosen) <= 1.1 * min(error(amax) for amax in np.linspace(1, 9, 100))


class Net(nn.Module):
    """Two convolutions read one tensor, and only where it exceeds 2 does it reach the output; a third goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.nowhere = (QuantConv2d(4, 4, 1, bias=False) for _ in range(3))
        self.model = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.stride = torch.tensor([8.0])
        for conv in (self.first, self.second, self.nowhere):
            conv.add_quantizers()
            with torch.no_grad():
                conv.weight.copy_(torch.eye(4).view(4, 4, 1, 1))
        quantizer.put_quantizer(self.second, quantizer.get_quantizer(self.first))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.nowhere(x + 1)
        return [torch.relu(self.first(x).abs() + self.second(x).abs() - 4)]


@pytest.fixture
def net() -> Net:
    quantizer.select_backend("native")
    return Net().eval()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 4, 32, 32, generator=generator) for _ in range(8)]


def probed(net: Net, reach: float) -> GroupProbe:
    """A probe in the place of the quantizer that two convolutions share; all others are gone."""
    probe = GroupProbe([reach])
    for conv in (net.first, net.second, net.nowhere):
        quantizer.put_quantizer(conv, nn.Identity() if conv is net.nowhere else probe)
        quantizer.put_quantizer(conv, nn.Identity(), quantizer.WEIGHT_NAME)
    return probe


def test_readers_of_one_tensor_count_as_one(net: Net, batches: list[torch.Tensor]) -> None:
    """By hand: the gradient at x is that of both readers together."""
    probe = probed(net, float(max(x.abs().max() for x in batches)))
    net.requires_grad_(True)
    with frozen_parameters(net):
        fill([probe], raw_outputs(net), batches[:1], seed=5)
    assert net.first.weight.requires_grad and net.first.weight.grad is None
    (histogram,) = probe.found()
    x = batches[0]
    out = torch.relu(2 * x.abs() - 4)
    directions = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)) / (out.square().sum() / 4).sqrt()
    slopes = (directions * 2 * x.sign() * (out > 0)).numpy()
    delta = rounded(x.numpy(), 2.5) - x.numpy()
    np.testing.assert_allclose(
        histogram.errors(torch.tensor([2.5], dtype=torch.float64))[0], (slopes * delta).sum((1, 2, 3)), atol=0.05
    )


def test_calibration_has_the_least_error_in_the_outputs(net: Net, batches: list[torch.Tensor]) -> None:
    calibrate_model(net, batches, "mse")
    by_mse, nowhere = float(quantizer.get_quantizer(net.first).amax), float(quantizer.get_quantizer(net.nowhere).amax)
    calibrate_model(net, batches, "sqnr")
    found = float(quantizer.get_quantizer(net.first).amax)
    x = torch.cat(batches).numpy()

    def error(amax: float) -> float:
        return float(((np.maximum(2 * np.abs(rounded(x, amax)) - 4, 0) - np.maximum(2 * np.abs(x) - 4, 0)) ** 2).sum())

    least = min(error(amax) for amax in np.linspace(2, 5, 200))
    assert error(found) <= 1.1 * least and error(by_mse) > 1.3 * least
    assert float(quantizer.get_quantizer(net.nowhere).amax) == nowhere  # no gradient: by its own error


@pytest.mark.parametrize(
    ("sides", "stride", "smaller"),
    [((640, 640), 32, (320, 320)), ((704, 1280), 32, (352, 640)), ((672, 640), 64, (384, 320)), ((640, 576), 32, None)],
)
def test_large_images_are_halved(sides: tuple[int, int], stride: int, smaller: tuple[int, int] | None) -> None:
    images = torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    found = halved(images, stride)
    if smaller is None:
        assert found is images
        return
    assert found.shape == (2, 3, *smaller)
    if sides == tuple(2 * side for side in smaller):
        expected = images.numpy().reshape(2, 3, smaller[0], 2, smaller[1], 2).mean((3, 5))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_gradients_come_from_halved_images(
    net: Net, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images with each pixel four times, ranges are those of the images with each pixel once."""
    calibrate_model(net, batches, "sqnr")
    expected = float(quantizer.get_quantizer(net.first).amax)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    large = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in batches]
    monkeypatch.setattr(gradient_ranges, "LEAST_SIDE", 32)
    calibrate_model(net, large, "sqnr")
    assert seen == 8 * [64] + 8 * [32]
    assert float(quantizer.get_quantizer(net.first).amax) == expected


def test_an_output_that_no_quantizer_reaches(net: Net, batches: list[torch.Tensor]) -> None:
    """As a segmentation network's, whose layers before it are all float: it takes its directions, and nothing else."""
    maps, rows = raw_outputs(net), []
    for more in ([], [torch.ones(4, 9)]):
        probe = probed(net, 6.0)
        fill([probe], lambda images, more=more: [*maps(images), *more], batches[:1])
        rows.append(torch.stack(probe.found()[0].rows).numpy())
    assert rows[0].any()
    np.testing.assert_allclose(rows[1] * 2**0.5, rows[0], atol=1e-6)  # two maps share the energy of one
    fill([probed(net, 6.0)], lambda images: [torch.ones(4, 9)], batches[:1])


def test_bars_have_a_total(net: Net, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    def terminal(*items: Any, **settings: Any) -> Any:
        bars.append(tqdm(*items, **{**settings, "disable": False}))
        return bars[-1]

    monkeypatch.setattr(progress_bar, "tqdm", terminal)
    calibrate_model(net, batches, "sqnr")
    assert [(bar.desc.rstrip(": "), bar.total, bar.n) for bar in bars] == [("Calibrate", 8, 8), ("Gradients", 32, 32)]
    monkeypatch.setattr(gradient_ranges, "IMAGES", 6)
    calibrate_model(net, iter(batches), "max")
    calibrate_model(net, batches, "sqnr")
    assert [(bar.total, bar.n) for bar in bars[2:]] == [(None, 8), (8, 8), (6, 6)]


def test_the_log_names_each_pass(
    net: Net, batches: list[torch.Tensor], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no terminal shows the bars, it tells what a run is busy with."""
    caplog.set_level("INFO", "quantization")
    calibrate_model(net, batches, "max")
    monkeypatch.setattr(gradient_ranges, "IMAGES", 6)
    calibrate_model(net, batches, "sqnr")
    assert [line for line in caplog.messages if not line.startswith("Scales")] == [
        "Calibrating by max",
        "Calibrating by sqnr",
        "Gradients of the detections for 6 images",
    ]


def test_choice_of_a_group_and_what_sharing_costs(batches: list[torch.Tensor]) -> None:
    calibrator = GroupCalibrator("sqnr")
    tensors = [batches[0], 3 * batches[1], torch.ones(4, 5)]
    for number, tensor in enumerate(tensors):
        calibrator.collect(tensor, f"conv{number}")
    end_batch([calibrator])
    gradients = [filled(tensors[0], tensors[0]), filled(tensors[1], tensors[1]), None]
    groups = {"g": calibrator}
    scales = {
        choice: group_scales(groups, choice, detection_scales(groups, choice, {"g": gradients}))["g"]
        for choice in ("error", "joint", "max")
    }
    alone = [best_amax([histogram]) for histogram in gradients[:2]]
    assert scales["max"].own[:2] == alone and scales["max"].amax == max(alone)
    assert scales["error"].amax == scales["joint"].amax == best_amax(gradients[:2])
    first = gradients[0]
    cost = 10 * np.log10(first.energy(scales["max"].amax) / first.energy(alone[0]))
    assert scales["max"].cost_db == pytest.approx([cost, 0, 0]) and cost > 1


def test_damaged_outputs_are_refused(net: Net, batches: list[torch.Tensor]) -> None:
    class Overflowing(Net):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [super().forward(x)[0] * float("inf")]

    net.__class__ = Overflowing
    with pytest.raises(UserError, match="NaN or infinite"):
        calibrate_model(net, batches, "sqnr")
