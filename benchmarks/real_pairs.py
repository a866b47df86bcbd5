"""Ways of quantizing against each other: seed by seed, on the resamples that their measurements left in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from bundle import BUNDLE  # noqa: F401  # puts the bundle on the import path
from real_tables import KEYS, table_head, table_row

from quantization.errors import UserError
from quantization.evaluation.bootstrap import difference
from quantization.evaluation.saved_samples import SavedSamples, read_samples

# what a network is measured in: rectangles as upstream evaluates, but for "square"; ONNX Runtime gets squares
RUNTIMES = {"torch": "torch", "square": "torch, squares", "onnxruntime": "ONNX Runtime"}


def way_pairs(entries: Sequence[str]) -> list[tuple[str, str]]:
    """WAY:WAY words.

    Raises:
        UserError: one is no pair.
    """
    split = [tuple(entry.split(":")) for entry in entries]
    for entry, ways in zip(entries, split):
        if len(ways) != 2 or not all(ways):
            raise UserError(f"--pairs {entry}: give WAY:WAY")
    return [(way, reference) for way, reference in split]


def compare_ways(work: Path, sets: Sequence[str], way: str, reference: str) -> dict[str, Any]:
    """One way against another, by runtime, set and seed that both have: "merged" and "map" in points.

    Args:
        work: of the benchmark.
        sets: names of the data sets.
        way: of quantizing.
        reference: the other way.

    Raises:
        UserError: they were measured on other images, or under other conditions.
    """
    found: dict[str, Any] = {}
    for runtime in RUNTIMES:
        for data in sets:
            folder = work / "results" / data
            seeds = {place.parent.name: place for place in folder.glob(f"{way}/*/{runtime}.npz")}
            for seed in sorted(seeds, key=int):
                other = folder / reference / seed / f"{runtime}.npz"
                if other.is_file():
                    found.setdefault(runtime, {}).setdefault(data, {})[seed] = _apart(seeds[seed], other)
    return found


def _apart(file: Path, other: Path) -> dict[str, Any]:
    """The first file's figures against the second's."""
    one, reference = read_alike(file, other)
    apart = difference(one.samples, reference.samples, ())
    return {key: apart[key] for key in KEYS}


def read_alike(file: Path, other: Path) -> tuple[SavedSamples, SavedSamples]:
    """Two files of samples.

    Raises:
        UserError: they were measured on other images, or under other conditions.
    """
    one, reference = read_samples(str(file)), read_samples(str(other))
    if (one.truth, one.conditions) != (reference.truth, reference.conditions):
        raise UserError(f"{file} and {other} hold figures of other images or conditions: measure both in the same way")
    return one, reference


def pair_lines(pairs: Mapping[str, Mapping[str, Any]], sets: Sequence[str]) -> Iterable[str]:
    """Tables in Markdown of what ``compare_ways`` found, and the pairs of which it found nothing.

    Args:
        pairs: by what a row is called.
        sets: names of the data sets, in the order of the table.
    """
    for runtime, title in RUNTIMES.items():
        known = {name: found[runtime] for name, found in pairs.items() if runtime in found}
        if not known:
            continue
        for key, words in KEYS.items():
            yield from table_head(f"Ways against each other, {title}, {words}", sets)
            for name, found in known.items():
                yield table_row(name, [[entry[key] for entry in found.get(data, {}).values()] for data in sets])
    missing = [name for name, found in pairs.items() if not found]
    if missing:
        yield from ("", f"Without a seed that both have: {', '.join(missing)}.")
