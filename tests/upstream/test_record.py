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
    placement={"float_layers": ["model.0.conv"], "float_weights": [], "extras": True},
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
