"""--max-drop: the search over a ranking, and a network made sensitive on purpose."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable, Sequence

import pytest
import torch
from torch import nn

from quantization.calibration.observation import collect_tensor
from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d
from quantization.quantizers.switches import disable_quantization
from quantization.ranges.histograms import MaxCalibrator
from quantization.sensitivity import budget
from quantization.sensitivity.drop import Drop
from quantization.sensitivity.int8_share import int8_share, multiply_accumulates
from quantization.sensitivity.units import Unit, find_units
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord
from support.log_records import package_records

FLOAT_MAP = 0.5


def metrics(value: float, plus_minus: float = 0.0) -> Metrics:
    apart = {"map": {"points": 100 * (value - FLOAT_MAP), "plus_minus": plus_minus}}
    return Metrics(value, value, 100, {}, value, against={"float": apart})


class Search:
    """Units with one quantizer each; ``map_of`` gives the mAP for a set of units in float."""

    def __init__(self, count: int, map_of: Callable[[set[int]], float], plus_minus: float = 0.0) -> None:
        quantizer.select_backend("native")
        self.units = [
            Unit((f"model.{index}",), (f"model.{index}",), (quantizer.make_quantizer(),)) for index in range(count)
        ]
        self.map_of, self.plus_minus, self.ranked, self.tried = map_of, plus_minus, False, 0

    def in_float(self) -> set[int]:
        return {index for index, unit in enumerate(self.units) if not quantizer.is_enabled(unit.quantizers[0])}

    def rank(self) -> Sequence[Unit]:
        self.ranked = True
        return self.units

    def evaluate(self) -> Metrics:
        self.tried += 1
        return metrics(self.map_of(self.in_float()), self.plus_minus)

    def run(self, points: float) -> budget.Outcome:
        outcome = budget.keep_within(self.rank, self.evaluate, points, "PTQ")
        assert {self.units.index(unit) for unit in outcome.left} == self.in_float()
        assert self.tried == len(outcome.steps)
        assert outcome.metrics.map == self.map_of(self.in_float())
        return outcome


def test_nothing_is_left_out_where_nothing_is_needed() -> None:
    search = Search(10, lambda left: 0.499)
    outcome = search.run(0.1)
    assert outcome.drop.met and not outcome.left and not search.ranked and search.tried == 1
    assert not Search(10, lambda left: 0.6).run(0.0).left


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 23, 60])
def test_the_shortest_prefix_is_found_in_few_evaluations(needed: int) -> None:
    search = Search(60, lambda left: FLOAT_MAP if left >= set(range(needed)) else 0.4)
    outcome = search.run(0.1)
    assert outcome.drop.met and search.in_float() == set(range(needed))
    assert search.tried <= 2 + 2 * 6 + budget.GIVE_BACK


def test_units_that_are_not_needed_are_given_back() -> None:
    search = Search(20, lambda left: FLOAT_MAP if left >= {1, 4} else 0.4)
    assert search.run(0.1).drop.met and search.in_float() == {1, 4}


def test_a_budget_out_of_reach_keeps_the_best() -> None:
    search = Search(6, lambda left: 0.40 + 0.01 * len(left) if len(left) <= 4 else 0.41)
    outcome = search.run(0.1)
    assert not outcome.drop.met and search.in_float() == {0, 1, 2, 3} and outcome.drop.points == pytest.approx(6)
    assert outcome.steps[-1] == {"units": 6, "map": 0.41, "drop": pytest.approx(9), "plus_minus": 0}


def test_what_the_data_do_not_show_costs_no_units() -> None:
    """Four units matter; the images happen to give less with fewer than 16 of the 37, by less than the interval."""

    def map_of(left: set[int]) -> float:
        return 0.45 + 0.0125 * len(left & {0, 1, 2, 3}) - (0.004 if len(left) < 16 else 0)

    sure, unsure = Search(37, map_of), Search(37, map_of, plus_minus=1.0)
    assert sure.run(0.2).drop.met and len(sure.in_float()) == 16
    outcome = unsure.run(0.2)
    assert unsure.in_float() == {0, 1, 2, 3} and unsure.tried <= 9
    assert outcome.drop.undecided and not outcome.drop.met


@pytest.mark.parametrize(
    "points, plus_minus, met, exceeds, undecided, images",
    [
        (0.5, 0.4, True, False, False, 64),
        (0.9, 0.4, True, False, True, 1600),
        (1.2, 0.4, False, False, True, 400),
        (1.5, 0.4, False, True, False, 64),
        (-0.5, 1.6, True, False, True, 114),
        (1.0, 0.4, True, False, True, None),
    ],
)
def test_a_drop_against_a_budget_of_one_point(
    points: float, plus_minus: float, met: bool, exceeds: bool, undecided: bool, images: int | None
) -> None:
    drop = Drop.of(metrics(FLOAT_MAP - points / 100, plus_minus), 1.0)
    assert (drop.met, drop.exceeds, drop.undecided) == (met, exceeds, undecided)
    assert drop.images_to_decide == (images if images is None else pytest.approx(images, abs=1))
    assert str(drop) == f"{-points:+.2f} +- {plus_minus:.2f} points against float"


def test_the_int8_share_is_of_the_multiply_accumulates() -> None:
    quantizer.select_backend("native")
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1, groups=2), nn.Flatten(), nn.Linear(6 * 14 * 14, 5))
    work = {model[0]: 14 * 14 * 8 * 3 * 9, model[1]: 14 * 14 * 6 * 4, model[3]: 5 * 6 * 14 * 14}
    assert multiply_accumulates(model, torch.rand(1, 3, 16, 16)) == work
    assert int8_share(work) == 0
    model[0].__class__ = QuantConv2d
    model[0].add_quantizers()
    assert int8_share(work) == pytest.approx(work[model[0]] / sum(work.values()))
    quantizer.set_enabled(model[0]._weight_quantizer, False)  # on an INT8 input, but computed in float
    assert int8_share(work) == 0


class Chain(nn.Module):
    """Five convolutions; the last one's output is the network's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(5):
            layers += [nn.Conv2d(8 if index else 3, 8, 3, padding=1), nn.ReLU(inplace=True)]
        self.model = nn.ModuleList([nn.Sequential(*layers[:-1]), nn.Identity()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model[1](self.model[0](x))


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(8, 3, 16, 16, generator=generator) for _ in range(3)]


def quantized(images: list[torch.Tensor], outlier: bool) -> nn.Module:
    """8 bits; the outlier leaves the float network as it is: ReLU(300 x) / 300 = ReLU(x)."""
    torch.manual_seed(0)
    quantizer.select_backend("native")
    model = Chain().requires_grad_(False)
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if outlier:
        convs[1].weight[2] *= 300
        convs[1].bias[2] = (convs[1].bias[2].abs() + 0.1) * 300  # never behind a ReLU that is shut
        convs[2].weight[:, 2] /= 300
    seen: dict[nn.Module, MaxCalibrator] = {conv: MaxCalibrator() for conv in convs}
    for conv in convs:
        conv.register_forward_pre_hook(lambda module, inputs: collect_tensor(seen[module], inputs[0]))
    for batch in images:
        model(batch)
    for conv in convs:
        conv._forward_pre_hooks.clear()
        conv.__class__ = QuantConv2d
        conv.add_quantizers()
        quantizer.set_amax(conv._input_quantizer, torch.tensor(seen[conv].compute_amax()))
        quantizer.set_amax(conv._weight_quantizer, conv.weight.abs().amax((1, 2, 3), keepdim=True))
    return model.eval()


def evaluator(model: nn.Module, images: list[torch.Tensor]) -> Callable[[], Metrics]:
    """Instead of a mAP: what the relative output error leaves of ``FLOAT_MAP``."""
    with torch.no_grad(), disable_quantization(model):
        exact = torch.cat([model(batch) for batch in images])

    def evaluate() -> Metrics:
        with torch.no_grad():
            error = torch.cat([model(batch) for batch in images]) - exact
        return metrics(FLOAT_MAP * (1 - float(error.norm() / (exact - exact.mean()).norm())))

    return evaluate


def hold(model: nn.Module, images: list[torch.Tensor], folder: Path, points: float) -> dict[str, Any]:
    """The figures that the summary holds after the budget."""
    summary = Summary(str(folder / "summary.json"), {}, {})
    written = CheckpointRecord(
        groups=[],
        calib_method="mse",
        backend="native",
        versions={},
        options={"ignore_policy": [r"model\.9"]},
        amax={},
        placement={"float_layers": ["model.9"], "float_weights": [], "extras": True},
        history=[{"epoch": 1}],
    )
    limit = budget.Budget(points, images, 0, summary)
    limit.hold(model, str(folder / "ptq.pt"), "ptq", written, evaluator(model, images))
    return summary.figures("ptq")


def test_a_network_with_an_outlier_channel_meets_its_budget(
    images: list[torch.Tensor], tmp_path: Any, monkeypatch: Any, caplog: Any
) -> None:
    plain, sensitive = quantized(images, outlier=False), quantized(images, outlier=True)
    points = 1.5 * 100 * (FLOAT_MAP - evaluator(plain, images)().map)  # enough for what 8 bits cost without an outlier
    assert 100 * (FLOAT_MAP - evaluator(sensitive, images)().map) > 3 * points
    saved: dict[str, Any] = {}

    def save(file: str, model: nn.Module, info: dict[str, Any]) -> None:
        saved.update(
            file=file,
            info=info,
            off=[path for path, _, _, place in quantizer.named_quantizers(model) if not quantizer.is_enabled(place)],
        )

    monkeypatch.setattr(checkpoint, "save", save)
    caplog.set_level(logging.INFO, logger="quantization")
    found = hold(sensitive, images, tmp_path, points)
    result = found["max_drop"]
    assert result["met"] and result["drop"] <= points and result["left_in_float"] == ["model.0.4"]
    assert saved["off"] == ["model.0.4"] * 2  # input and weight
    assert saved["info"]["placement"]["float_layers"] == ["model.9", "model.0.4"]
    assert result["ignore_policy"] == saved["info"]["options"]["ignore_policy"] == [r"model\.9", r"model\.0\.4"]
    shares = [entry * 8 * 9 for entry in (3, 8, 8, 8, 8)]  # all layers see 16 x 16 pixels
    assert result["int8_share"] == {"before": 1, "after": pytest.approx(1 - shares[2] / sum(shares))}
    assert (
        f"{100 - 100 * shares[2] / sum(shares):.1f} % of the multiply-accumulates of convolutions and linear layers"
        in caplog.text
    )
    assert found["epochs"] == [{"epoch": 1}] and found["map"] == result["steps"][-1]["map"]
    assert r"--ignore-policy 'model\.9' 'model\.0\.4'" in caplog.text
    assert (
        all(quantizer.is_enabled(unit.quantizers[0]) for unit in find_units(sensitive))
        and len(find_units(sensitive)) == 5
    )

    saved.clear()
    caplog.clear()
    result = hold(plain, images, tmp_path, points)["max_drop"]
    assert result["met"] and not result["left_in_float"] and not saved and len(result["steps"]) == 1
    assert "all units stay quantized" in caplog.text


def test_an_unmet_budget_warns(images: list[torch.Tensor], caplog: Any) -> None:
    model = quantized(images, outlier=False)
    units = find_units(model)
    outcome = budget.keep_within(lambda: units, lambda: metrics(0.3), 0.1, "QAT")
    budget.report(outcome, [], "QAT", (1.0, 1.0))
    assert not outcome.drop.met and not outcome.left  # all figures are alike: nothing is gained by leaving units out
    (warning,) = package_records(caplog, above=logging.INFO)
    assert "QAT: the budget of 0.1 points is not met" in warning.getMessage()


def test_too_few_images_are_said_to_be_too_few(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quantization")
    outcome = budget.keep_within(list, lambda: metrics(FLOAT_MAP - 0.0098, 0.7), 0.5, "PTQ")
    budget.report(outcome, [], "PTQ", (1.0, 1.0))
    (warning,) = (entry.getMessage() for entry in package_records(caplog, above=logging.INFO))
    assert "100 validation images are too few to tell whether the budget of 0.5 points is met" in warning
    assert "(-0.98 +- 0.70 points against float): it would take about 213;" in warning
    assert "is not shown to exceed the budget of 0.5; all units stay quantized" in caplog.text
    record = outcome.record([])
    assert not record["met"] and record["undecided"] and not record["left_in_float"]
