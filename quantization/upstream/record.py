"""What a checkpoint of the bundle says of itself: what was decided, by whom, and with which options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Mapping

from quantization.errors import UserError

LARGEST, DEEPEST = 1_000_000, 12  # values in a record, lists within lists
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
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: its record is damaged (a {type(content).__name__}): quantize again")
    values = dict(content)
    number = values.setdefault("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise UserError(
            f"{file} has a record of format {repr(number)[:40]}, this version reads 1 to {FORMAT}: update quant-tools"
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
    for name, value in values.items():
        if not _fits(name, value):
            raise UserError(
                f"{file}: the entry {name} of its record is damaged (a {type(value).__name__}, or of wrong parts): "
                "quantize again"
            )
    return CheckpointRecord(**values)


def _fits(name: str, value: Any) -> bool:
    """Whether an entry is what ``CheckpointRecord`` says."""
    if name == "groups":
        return isinstance(value, list) and all(map(_are_names, value))
    if name in ("calib_method", "backend", "run"):
        return isinstance(value, str)
    if name in ("epoch", "format"):
        return type(value) is int and value >= 0
    if name == "history":
        return isinstance(value, list) and all(isinstance(part, dict) for part in value) and _is_plain(value)
    if name in ("placement", "max_drop") and value is None:
        return True
    if not isinstance(value, dict) or not _is_plain(value):
        return False
    if name == "versions":
        return _are_names(list(value.values()))
    if name == "placement":
        return set(value) <= {"float_layers", "float_weights", "paired", "extras"} and all(
            isinstance(part, bool) if key == "extras" else _are_names(part) for key, part in value.items()
        )
    return True


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _is_plain(value: Any) -> bool:
    """Whether it is what JSON can hold, and not too large: a list may stand in it many times."""
    count, level = 0, [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict) and all(isinstance(key, str) for key in entry):
                below.extend(entry.values())
            elif isinstance(entry, (list, tuple)):
                below.extend(entry)
            elif not isinstance(entry, (str, int, float, type(None))):
                return False
            if len(below) > LARGEST:
                return False
        count, level = count + len(below), below
        if not level or count > LARGEST:
            return not level
    return False


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Today's entries of version 0.1's; the placement stays None, since the model's own modules tell it."""
    options = values.get("options") or {}
    if not isinstance(options, dict):
        return {**values, "format": FORMAT}  # refused by its type
    options = dict(options)
    if "quantize_head" in options:
        options["head"] = HEAD_BEFORE[bool(options.pop("quantize_head"))]
    return {**values, "options": options, "format": FORMAT}
