"""Times of an engine's layers (``--exportProfile``); TensorRT 8.5 to 11."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from quantization.errors import UserError
from quantization.inspector.layers import Engine, clean, read_json

_LONGEST_MS = 1e9  # a number above it, infinity or NaN is damage, not a time


def add_profile(engine: Engine, path: Path) -> None:
    """Set ``time_ms`` of the layers.

    Equal names are matched in order. A layer that the profile lacks keeps None, and the engine gets a note.

    Raises:
        UserError: the file is unreadable, not a profile, or that of another engine.
    """
    data = read_json(path)
    if isinstance(data, dict) and "Layers" in data:
        raise UserError(f"{path} is layer information (--exportLayerInfo): give it as --layer, a profile as --profile")
    if not isinstance(data, list):
        raise UserError(f"{path} is not a list of layer times: give the file of trtexec --exportProfile")
    count = 1
    times: dict[str, deque[float]] = defaultdict(deque)
    for index, item in enumerate(data):
        place = f"{path}: entry {index}"
        if not isinstance(item, dict):
            raise UserError(f"{place} is not an object")
        if "count" in item and "name" not in item:
            count = int(_number(item, "count", place)) or 1
        elif isinstance(item.get("name"), str):
            times[clean(item["name"])].append(_time_ms(item, count, place))
        else:
            raise UserError(f'{place} has no "name"')
    for layer in engine.layers:
        if times[layer.name]:
            layer.time_ms = times[layer.name].popleft()
    missing = sum(layer.time_ms is None for layer in engine.layers)
    if missing == len(engine.layers):
        raise UserError(f"{path} names no layer of {engine.name}: give the profile of the same engine")
    if missing:
        engine.notes.append(f"{missing} of {len(engine.layers)} layers of {engine.name} have no time in {path}")


def _time_ms(item: dict[str, Any], count: int, place: str) -> float:
    """Time of one inference: the median where the version gives it, else the mean, else the sum over all runs."""
    for key in ("medianMs", "averageMs"):
        if key in item:
            return _number(item, key, place)
    return _number(item, "timeMs", place) / count


def _number(item: dict[str, Any], key: str, place: str) -> float:
    value = item.get(key)
    if type(value) not in (int, float) or not 0 <= value <= _LONGEST_MS:
        raise UserError(f'{place}: "{key}" is missing or not a time or count')
    return float(value)
