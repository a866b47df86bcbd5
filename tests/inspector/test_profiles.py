"""Engines with several optimization profiles: two-profiles holds first-concat-ptq and, as profile 1, -no-rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantization.errors import UserError
from quantization.inspector.layers import load_layers
from quantization.inspector.records import EngineInfo
from quantization.inspector.report import report_engine
from quantization.inspector.text import engine_text
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph
from support.engine_files import ENGINES, load_engine

LAYERS = ENGINES / "two-profiles-layer.json"
TIMES = ENGINES / "two-profiles-profile.json"  # a run of profile 1


def described(engine: EngineInfo) -> list[object]:
    """Everything that a report depends on."""
    return [
        engine.bindings,
        [(layer.index, layer.name, layer.inputs, layer.outputs, layer.nodes, layer.time_ms) for layer in engine.layers],
    ]


@pytest.mark.parametrize(
    "index, same", [(None, "first-concat-ptq"), (0, "first-concat-ptq"), (1, "first-concat-no-rule")]
)
def test_one_profile_reads_as_an_engine_without_others(index: int | None, same: str) -> None:
    engine = load_engine("two-profiles", profile=False, index=index)
    expected = load_engine(same, profile=False)
    assert described(engine) == described(expected)
    assert engine.profile == (index or 0)
    texts = [engine_text(report_engine(EngineGraph(each))) for each in (engine, expected)]
    assert texts[0].replace(engine.name, "").split() == texts[1].replace(expected.name, "").split()


def test_the_first_profile_is_taken_with_a_note() -> None:
    engine = load_engine("two-profiles", profile=False)
    assert len(engine.notes) == 1 and "2 optimization profiles" in engine.notes[0]
    assert "--profile-index" in engine.notes[0] and engine.name == "two-profiles"
    chosen = load_engine("two-profiles", profile=False, index=1)
    assert not chosen.notes and chosen.name == "two-profiles [profile 1]"
    assert load_layers(LAYERS, "mine", 1).name == "mine"


@pytest.mark.parametrize("name, index, count", [("two-profiles", 2, "2"), ("two-profiles", -1, "2"), ("loop", 1, "1")])
def test_a_profile_that_is_absent_is_refused(name: str, index: int, count: str) -> None:
    path = ENGINES / f"{name}-layer.json"
    with pytest.raises(UserError) as caught:
        load_layers(path, profile_index=index)
    message = str(caught.value)
    assert str(path) in message and f"has {count} optimization profile" in message and "\n" not in message
    assert f"not {index}" in message


def test_times_are_those_of_the_profile() -> None:
    engine = add_profile(load_layers(LAYERS, profile_index=1), TIMES)
    assert described(engine) == described(load_engine("first-concat-no-rule"))
    assert not engine.notes
    with pytest.raises(UserError, match="times of optimization profile 1, not 0: give --profile-index 1"):
        add_profile(load_layers(LAYERS), TIMES)
    with pytest.raises(UserError, match="times of optimization profile 0, not 1: give --profile-index 0"):
        add_profile(load_layers(LAYERS, profile_index=1), ENGINES / "first-concat-ptq-profile.json")


def test_bindings_may_have_one_name_for_all_profiles(tmp_path: Path) -> None:
    data = json.loads(LAYERS.read_text(encoding="utf-8"))
    plain = [name for name in data["Bindings"] if "profile" not in name]
    path = tmp_path / "layer.json"
    path.write_text(json.dumps({**data, "Bindings": plain}), encoding="utf-8")
    engine = load_layers(path, profile_index=1)
    assert engine.bindings == plain
    assert described(engine) == described(load_engine("first-concat-no-rule", profile=False))
