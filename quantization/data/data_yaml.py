"""The data.yaml of a YOLO data set, its types checked; no image is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantization.errors import UserError
from quantization.text import read_text, read_yaml, wide_hint


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says.

    Attributes:
        file: the file.
        root: its ``path:``; "" without.
        train: entries of ``train:``, as they stand.
        val: entries of ``val:``, as they stand.
        names: class names; empty if the file has none.
        class_count: number of names, or ``nc:``; None if the file has neither.
    """

    file: Path
    root: str
    train: list[str]
    val: list[str]
    names: list[str]
    class_count: int | None


def read_data_yaml(file: Path) -> DataYaml:
    """Read a data.yaml.

    Raises:
        UserError: it is not valid YAML, lacks train: or val:, or a value has the wrong type.
    """
    name = f"--data {file}"
    if file.is_dir():
        raise UserError(f"{name} is a folder: name the data.yaml in it")
    content = read_yaml(file, "--data")
    if not isinstance(content, dict) or "train" not in content or "val" not in content:
        raise UserError(f"{name} lacks train: or val:, the folders or lists of images{wide_hint(read_text(file))}")
    root = content.get("path")
    if root is not None and not isinstance(root, str):
        raise UserError(f"{name}: path: is {_kind(root)}: write the data set's folder as text")
    names = _names(content["names"], name) if "names" in content else []
    count = _class_count(content["nc"], name) if "nc" in content else None
    if names and count not in (None, len(names)):
        hint = wide_hint(read_text(file))
        raise UserError(f"{name} says nc: {count} but lists {len(names)} names: make them agree{hint}")
    parts = {part: _entries(content[part], part, name) for part in ("train", "val")}
    return DataYaml(file, root or "", parts["train"], parts["val"], names, len(names) if names else count)


def split_sources(content: DataYaml, part: str, entries: list[str]) -> list[tuple[Path, list[Path]]]:
    """Where each entry of a split exists: the place that upstream would take first, and all others.

    Relative entries are tried below ``path:`` from the current folder, as upstream does, then from the yaml's folder,
    then without ``path:``. An entry that starts with ``../``, as in Roboflow's exports, is tried without it last.

    Raises:
        UserError: an entry exists nowhere.
    """
    here, beside = Path("."), content.file.parent
    bases = [here / content.root, beside / content.root, here, beside]
    sources = []
    for entry in entries:
        spellings = [entry, entry[3:]] if entry.startswith("../") else [entry]
        candidates = [base / spelling for spelling in spellings for base in bases]
        found = [candidate for candidate in candidates if candidate.exists()]
        if not found:
            raise UserError(f"--data {content.file}: {part}: {_nowhere(entry, candidates, beside)}")
        first = found[0].resolve()
        sources.append((found[0], [other for other in found[1:] if other.resolve() != first]))
    return sources


def _nowhere(entry: str, candidates: list[Path], beside: Path) -> str:
    """What to do about an entry that exists nowhere: an export of another machine often has its tail beside the yaml."""
    parts = [part for part in Path(entry).parts if part not in ("/", "..")]
    tails = (Path(*parts[start:]) for start in range(1, len(parts)))
    tail = next((tail for tail in tails if (beside / tail).exists()), None)
    if tail is not None:
        return f"{entry} does not exist; {tail} beside the yaml does: write that"
    if Path(entry).is_absolute():
        return f"{entry} does not exist: write where the images are on this machine"
    places = list(dict.fromkeys(str(candidate.resolve()) for candidate in candidates))[:4]
    return f"there is no {' and no '.join(places)}: give path: the absolute path of the data set"


def _entries(value: Any, part: str, name: str) -> list[str]:
    if value in (None, "", []):
        raise UserError(f"{name}: {part}: is empty: give a folder, a .txt list, or a list of them")
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip():
            raise UserError(f"{name}: {part}: has {_kind(entry)}: give a folder, a .txt list, or a list of them")
    return entries


def _names(value: Any, name: str) -> list[str]:
    """The names in the order of their classes, from a list or from a mapping of 0, 1, 2... to names."""
    if isinstance(value, dict):
        keys = list(value)
        if not all(type(key) is int for key in keys) or sorted(keys) != list(range(len(keys))):
            found = ", ".join(str(key) for key in keys if isinstance(key, (str, int, float)))
            raise UserError(
                f"{name}: the keys of names: are {found[:80]}; number the classes 0 to {len(keys) - 1} without gaps"
            )
        value = [value[key] for key in sorted(keys)]
    if not isinstance(value, list):
        raise UserError(f"{name}: names: is {_kind(value)}: write a list, names: [person, car]")
    if not value:
        raise UserError(f"{name}: names: is empty: list the class names, or leave names: out and give nc:")
    for number, entry in enumerate(value):
        if entry is None or isinstance(entry, (list, dict)):
            raise UserError(f"{name}: the name of class {number} is {_kind(entry)}: give text")
    return [str(entry) for entry in value]


def _class_count(value: Any, name: str) -> int:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    if isinstance(value, str) and value.strip().isdecimal():
        value, whole = int(value), True
    if not whole or not 1 <= value < 1e6:
        raise UserError(f"{name}: nc: is {_kind(value)}: give the number of classes, or leave nc: out and list names:")
    return int(value)


def _kind(value: Any) -> str:
    """A value in words: never its whole content, which an alias can blow up."""
    if value is None or value == "":
        return "an empty value"
    if isinstance(value, (str, int, float)):
        return repr(value)[:80]
    return {"list": "a list", "dict": "a mapping"}.get(type(value).__name__, f"a {type(value).__name__}")
