"""What a checkpoint says of itself: kept, migrated or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from quantization.errors import UserError
from quantization.upstream.record import FORMAT, CheckpointRecord, read_record

RECORD = CheckpointRecord(
    groups=[["model.1.conv"]],
    calib_method="mse",
    backend="native",
    versions={"torch": "2.13"},
    options={"head": "auto"},
    amax={"model.1.conv._input_quantizer": 1.0},
    placement={"float_layers": ["model.0.conv"], "float_weights": [], "paired": ["model.1.conv"], "extras": True},
)


def old(**changes: Any) -> dict[str, Any]:
    """The entries of version 0.1."""
    content = RECORD.content()
    for key in ("format", "placement", "epoch", "history", "max_drop"):
        content.pop(key)
    return {**content, **changes}


def test_a_record_comes_back() -> None:
    assert read_record(RECORD.content(), "a.pt") == RECORD
    assert read_record({}, "float.pt") is None


@pytest.mark.parametrize("flag, head", [(True, "int8"), (False, "float")])
def test_quantize_head_of_version_0_1_is_migrated(flag: bool, head: str) -> None:
    found = read_record(old(options={"quantize_head": flag}, epoch=3, history=[{"epoch": 3}]), "a.pt")
    assert found is not None and found.options == {"head": head} and found.epoch == 3
    assert found.placement is None and found.format == FORMAT  # the model's own modules tell the placement


@pytest.mark.parametrize(
    "content, message",
    [
        ({**RECORD.content(), "format": FORMAT + 1}, f"format {FORMAT + 1}, this version reads 1 to {FORMAT}"),
        ({**RECORD.content(), "format": "x"}, "format 'x'"),
        ({**RECORD.content(), "sparsity": 1}, "does not know: sparsity"),
        ({key: value for key, value in RECORD.content().items() if key != "amax"}, "lacks amax"),
        (old(extra=1), "does not know: extra"),
    ],
)
def test_unknown_entries_are_refused_by_name(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"a\.pt") as caught:
        read_record(content, "a.pt")
    assert message in str(caught.value)


ODD: list[Any] = [[1], "text", 5, True, None, {"a": [object]}, {1: 2}, [[1]], [["a"], "b"], {"extras": 3}, -1, 2.5, b""]


def fitting(name: str, value: Any) -> bool:
    """Whether one of ``ODD`` is what an entry may be."""
    return {
        "calib_method": value == "text",
        "backend": value == "text",
        "run": value == "text",
        "epoch": value == 5 and value is not True,
        "placement": value is None,
        "max_drop": value is None or value == {"extras": 3},
        "options": value == {"extras": 3},
        "amax": value == {"extras": 3},
    }.get(name, False)


@pytest.mark.parametrize("name", sorted(set(RECORD.content()) - {"format"}))
def test_entries_of_the_wrong_type_are_refused_by_name(name: str) -> None:
    for value in ODD:
        content = {**RECORD.content(), name: value}
        if fitting(name, value):
            read_record(content, "a.pt")
            continue
        with pytest.raises(UserError, match=rf"^a\.pt: the entry {name} of its record is damaged"):
            read_record(content, "a.pt")


@pytest.mark.parametrize("options", [2.5, True, "quantize_head", ["quantize_head"]])
def test_options_of_the_wrong_type_in_format_1(options: Any) -> None:
    content = {**RECORD.content(), "options": options}
    content.pop("format")
    with pytest.raises(UserError, match=r"^a\.pt: the entry options of its record is damaged"):
        read_record(content, "a.pt")


def test_a_list_that_stands_in_it_endlessly_is_refused() -> None:
    laughs: Any = ["ha"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    inside: list[Any] = []
    inside.append(inside)
    for value in (laughs, inside):
        with pytest.raises(UserError, match="the entry options"):
            read_record({**RECORD.content(), "options": {"a": value}}, "a.pt")


@pytest.mark.parametrize("content", [[1], "text", {1: 2}, 5])
def test_a_record_that_is_none(content: Any) -> None:
    with pytest.raises(UserError, match=r"a\.pt: its record is damaged"):
        read_record(content, "a.pt")
