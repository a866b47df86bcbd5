"""One calibration for several placements, against a calibration of each placement alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantization.calibration import gradient_ranges
from quantization.calibration.calibrate import calibrate_model
from quantization.calibration.common import CommonCalibration, input_places
from quantization.options import CalibrationOptions
from quantization.placement.variants import enabled_places, keep_places
from quantization.quantizers import backend
from quantization.quantizers.modules import QuantConv2d
from quantization.quantizers.switches import amax_tensors

CONVOLUTIONS = ("stem", "one", "two", "joined", "head", "head2", "unused")


class Net(nn.Module):
    """``a`` is read four times and ``b`` twice, by quantizers of one group; the heads are the outputs."""

    def __init__(self) -> None:
        super().__init__()
        widths = {"stem": (3, 8), "one": (8, 8), "two": (8, 8), "joined": (16, 8), "head": (8, 5), "head2": (8, 5)}
        for name, (inside, out) in {**widths, "unused": (8, 8)}.items():
            conv = QuantConv2d(inside, out, 3, padding=1)
            conv.add_quantizers()
            self.add_module(name, conv)
        self.model = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.stride = torch.ones(1)
        for name in ("one", "two", "joined", "head"):
            backend.put_quantizer(self.get_submodule(name), backend.get_quantizer(self.get_submodule("head2")))

    def forward(self, images: Tensor) -> list[Tensor]:
        apply = {name: self.get_submodule(name) for name in CONVOLUTIONS}
        a = functional.silu(apply["stem"](images))
        b = 3 * functional.silu(apply["one"](a))
        c = functional.silu(apply["joined"](torch.cat((a, b), 1)) + apply["two"](a))
        return [apply["head"](b) + apply["head2"](a), apply["head2"](c)]


PLACEMENTS = ((), ("head2",), ("stem", "two"), ("head", "joined", "one"))  # what each leaves in float


@pytest.mark.parametrize("method, group_scale", [("sqnr", "error"), ("mse", "error"), ("max", "max")])
def test_each_placement_gets_the_scales_of_its_own_calibration(
    method: str, group_scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_ranges, "CANDIDATES", 32)  # for speed
    backend.select_backend("native")
    torch.manual_seed(0)
    model = Net().eval().requires_grad_(False)
    batches = [torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    everything = enabled_places(model)
    placements = [frozenset(place for place in everything if place[0] not in left) for left in PLACEMENTS]
    alone = []
    for places in placements:
        part = copy.deepcopy(model)
        keep_places(part, places)
        calibrate_model(part, batches, method, group_scale=group_scale)
        alone.append(amax_tensors(part))

    common_model = copy.deepcopy(model)
    options = CalibrationOptions(method=method, group_scale=group_scale)
    common = CommonCalibration(common_model, batches, options, [input_places(places) for places in placements])
    for places, expected in zip(placements, alone):
        part = copy.deepcopy(common_model)
        keep_places(part, places)
        common.set_ranges(part)
        assert ("unused", backend.INPUT_NAMES[0]) not in enabled_places(part)  # nothing reads it
        found = {name: amax for name, amax in amax_tensors(part).items() if tuple(name.split(".")) in places}
        assert len(found) >= 6 and all(torch.equal(amax, expected[name]) for name, amax in found.items())
    if method != "max":  # placements matter
        assert len({float(amax.get(f"two.{backend.INPUT_NAMES[0]}", 0)) for amax in alone}) > 1
