"""Random changes to files: to their bytes, or to parts of their structure."""

from __future__ import annotations

import copy
import json
import random
from typing import Any, Callable

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    "",
    "\0",
    "a" * 300,
    [],
    {},
    [[]],
    {"a": [{}]},
    "1",
    2.5,
]
ODD_TEXT = [
    "\0",
    "\ufeff",
    "&a [*a]",
    "<<: *a",
    "*a",
    "!!int x",
    ": ",
    "{",
    "]",
    "- ",
    "\t",
    "1e999",
    "nan",
    "-1",
    "\n",
    "\r",
]


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Up to 4 changes: bytes replaced, cut out, repeated, or words put in."""
    content = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        start = rng.randint(0, len(content))
        end = min(len(content), start + rng.choice((1, 1, 4, 30, len(content))))
        part = bytes(content[start:end])
        content[start:end] = rng.choice(
            (
                b"",
                part * 2,
                bytes(rng.choices(range(256), k=len(part))) if len(part) < 99 else b"",
                rng.choice(ODD_TEXT).encode() + part,
            )
        )
    return bytes(content)


def change_tree(rng: random.Random, tree: Any) -> Any:
    """A copy of nested lists and dictionaries with up to 3 parts replaced, removed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(0, 3)):
        place, depth = tree, rng.randint(0, 5)
        while depth and isinstance(place, (list, dict)) and place:
            keys = list(range(len(place))) if isinstance(place, list) else list(place)
            key, depth = rng.choice(keys), depth - 1
            if depth == 0 or not isinstance(place[key], (list, dict)) or not place[key]:
                value = copy.deepcopy(rng.choice((*ODD, place[rng.choice(keys)])))
                if rng.random() < 0.3:
                    del place[key]
                elif rng.random() < 0.2 and isinstance(place, dict):
                    place[rng.choice(("", "a", "Name", "0"))] = value
                else:
                    place[key] = value
                break
            place = place[key]
    return copy.deepcopy(rng.choice(ODD)) if rng.random() < 0.02 else tree


def json_maker(tree: Any) -> Callable[[random.Random], bytes]:
    """Makes JSON files like ``tree``."""

    def make(rng: random.Random) -> bytes:
        data = json.dumps(change_tree(rng, tree)).encode()
        return change_bytes(rng, data) if rng.random() < 0.3 else data

    return make


def text_maker(*texts: str) -> Callable[[random.Random], bytes]:
    """Makes text files like one of ``texts``."""
    return lambda rng: change_bytes(
        rng, rng.choice(texts).encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
    )
