"""What quantizing costs in one runtime or shape against what it costs in another, on the same resamples."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from real_pairs import read_alike
from real_tables import KEYS, table_head, table_row

from quantization.errors import UserError
from quantization.evaluation.bootstrap import Samples, difference

COMPARED = {"squares against rectangles": ("square", "torch"), "ONNX Runtime against torch": ("onnxruntime", "square")}


def compare_runtimes(work: Path, sets: Sequence[str], runtime: str, other: str) -> dict[str, Any]:
    """By way, set and seed that have both: the change from float in one minus that in the other, "merged" and "map" in points.

    Args:
        work: of the benchmark.
        sets: names of the data sets.
        runtime: what the networks were measured in, by its name in the files.
        other: likewise.

    Raises:
        UserError: they were measured on other images.
    """
    found: dict[str, Any] = {}
    for data in sets:
        folder = work / "results" / data
        for file in sorted(folder.glob(f"*/*/{runtime}.npz")):
            if (file.parent / f"{other}.npz").is_file():
                changes = [_change(file.with_name(f"{name}.npz"), folder / "float") for name in (runtime, other)]
                if changes[0][1] != changes[1][1]:
                    raise UserError(f"{file.parent}: {runtime}.npz and {other}.npz hold figures of other images")
                apart = difference(changes[0][0], changes[1][0], ())
                seeds = found.setdefault(file.parent.parent.name, {}).setdefault(data, {})
                seeds[file.parent.name] = {key: apart[key] for key in KEYS}
    return found


def _change(file: Path, float_folder: Path) -> tuple[Samples, str]:
    """A network's figures minus those of float in the same runtime, and the digest of the annotations."""
    one, reference = read_alike(file, float_folder / file.name)
    names = [entry.name for entry in fields(Samples)]
    return Samples(*(getattr(one.samples, name) - getattr(reference.samples, name) for name in names)), one.truth


def runtime_lines(compared: Mapping[str, Mapping[str, Any]], sets: Sequence[str]) -> Iterable[str]:
    """Tables in Markdown of what ``compare_runtimes`` found; nothing where it found nothing.

    Args:
        compared: by what a table is called, see ``COMPARED``.
        sets: names of the data sets, in the order of the table.
    """
    for title, found in compared.items():
        for key, words in KEYS.items() if found else ():
            yield from table_head(f"Changes in {title}, {words}", sets)
            for way, by_set in found.items():
                yield table_row(way, [[entry[key] for entry in by_set.get(data, {}).values()] for data in sets])
