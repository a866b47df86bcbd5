"""Times of an engine's layers (``--exportProfile``); TensorRT 8.5 to 11."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantization.errors import UserError
from quantization.inspector.layers import read_export
from quantization.inspector.names import printable
from quantization.inspector.profiles import profile_of
from quantization.inspector.records import EngineInfo

_LONGEST_MS = 1e9  # a number above it, infinity or NaN is damage, not a time


def add_profile(engine: EngineInfo, path: Path) -> EngineInfo:
    """The engine with the times of its layers.

    Equal names are matched in order. A layer that the profile lacks has no time, and the engine gets a note.

    Raises:
        UserError: the file is unreadable, not a profile, or that of another engine or optimization profile.
    """
    times = _times(path)
    names = set(times)
    layers = []
    for layer in engine.layers:
        waiting = times.get(printable(layer.record["Name"]))  # with the suffix of its optimization profile
        layers.append(replace(layer, time_ms=waiting.popleft()) if waiting else layer)
    missing = sum(layer.time_ms is None for layer in layers)
    if missing == len(layers):
        others = sorted({profile_of(name) for name in names} - {engine.profile})
        if others:
            raise UserError(
                f"{path} holds times of optimization profile {others[0]}, not {engine.profile}: "
                f"give --profile-index {others[0]}"
            )
        raise UserError(f"{path} names no layer of {engine.name}: give the profile of the same engine")
    notes = [f"{missing} of {len(layers)} layers of {engine.name} have no time in {path}"] if missing else []
    left = sum(map(len, times.values()))
    if missing and left:
        notes[0] += f", and {left} of its times belong to no layer: is it the profile of the same engine?"
    return replace(engine, layers=layers, notes=[*engine.notes, *notes])


def _times(path: Path) -> dict[str, deque[float]]:
    """Name of a layer to its times, of one inference each."""
    data = read_export(path)
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
            times[printable(item["name"])].append(_time_ms(item, count, place))
        else:
            raise UserError(f'{place} has no "name"')
    return times


def _time_ms(item: dict[str, Any], count: int, place: str) -> float:
    """Time of one inference: the median where the version gives it, else the mean, else the sum over all runs."""
    for key in ("medianMs", "averageMs"):
        if key in item:
            return _number(item, key, place)
    return _number(item, "timeMs", place) / count


def _number(item: dict[str, Any], key: str, place: str) -> float:
    value: object = item.get(key)
    # a bool is an int, but no time
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LONGEST_MS:
        raise UserError(f'{place}: "{key}" is missing or not a time or count')
    return float(value)
