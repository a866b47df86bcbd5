"""What a checkpoint of the bundle says of itself: what was decided, by whom, and with which options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Mapping

from quantization.errors import UserError

FORMAT = 2  # 1: without "format" and "placement"; every version read its raw flags in its own way
HEAD_BEFORE = {True: "int8", False: "float"}  # what --quantize-head meant before --head


@dataclass(frozen=True)
class CheckpointRecord:
    """Saved beside the model.

    Attributes:
        format: version of this record.
        placement: fields of the ``Placement`` that was decided, lists of module paths; None in format 1.
        groups: places of each scale group.
        calib_method: how ranges were found.
        backend: quantizer backend.
        versions: of the bundle and the packages that the result depends on.
        options: of the command that wrote it, by name. For the reader; nothing decides by them.
        amax: of each quantizer, by place; largest and smallest of a weight's.
        epoch: of QAT; 0: none.
        history: one record per epoch of QAT.
        max_drop: what ``--max-drop`` did.
        run: id of the run that wrote it; "" in older checkpoints.
    """

    groups: list[list[str]]
    calib_method: str
    backend: str
    versions: dict[str, str]
    options: dict[str, Any]
    amax: dict[str, Any]
    placement: dict[str, Any] | None = None
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    max_drop: dict[str, Any] | None = None
    run: str = ""
    format: int = FORMAT

    def with_(self, **changes: Any) -> CheckpointRecord:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def content(self) -> dict[str, Any]:
        """Plain types, as they are pickled."""
        return dataclasses.asdict(self)


def read_record(content: Mapping[str, Any], file: str) -> CheckpointRecord | None:
    """The record of a checkpoint; None if there is none (a float checkpoint of train.py).

    Args:
        content: what ``checkpoint.load`` found.
        file: for messages.

    Raises:
        UserError: the record is damaged, or a newer version wrote it.
    """
    if not content:
        return None
    values = dict(content)
    number = values.setdefault("format", 1)
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise UserError(
            f"{file} has a record of format {number!r}, this version reads 1 to {FORMAT}: update quant-tools"
        )
    if number == 1:
        values = _from_format_1(values)
    known = {entry.name: entry for entry in dataclasses.fields(CheckpointRecord)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{file} has entries that this version does not know: {', '.join(unknown)}; update quant-tools")
    missing = sorted(
        name
        for name, entry in known.items()
        if name not in values and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    )
    if missing:
        raise UserError(f"{file} lacks {', '.join(missing)}: it is damaged; quantize again")
    return CheckpointRecord(**values)


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Today's entries of version 0.1's; the placement stays None, since the model's own modules tell it."""
    options = dict(values.get("options") or {})
    if "quantize_head" in options:
        options["head"] = HEAD_BEFORE[bool(options.pop("quantize_head"))]
    return {**values, "options": options, "format": FORMAT}
