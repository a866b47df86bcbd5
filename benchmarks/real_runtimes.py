"""What quantizing costs in one runtime or shape against what it costs in another, on the same resamples."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from real_pairs import KEYS, seed_counts
from real_statistics import mean_of_seeds, mean_of_sets

from quantization.errors import UserError
from quantization.evaluation.bootstrap import Samples, difference
from quantization.evaluation.saved_samples import read_samples
from quantization.evaluation.wording import points_text

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
    one, reference = read_samples(str(file)), read_samples(str(float_folder / file.name))
    if (one.truth, one.conditions) != (reference.truth, reference.conditions):
        raise UserError(f"{file} and {reference.file} hold figures of other images or conditions")
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
            yield from ("", f"## Changes in {title}, {words}", "")
            yield "| | seeds | " + " | ".join(sets) + " | mean |"
            yield "|---|---|" + "---:|" * (len(sets) + 1)
            for way, by_set in found.items():
                groups = [[entry[key] for entry in by_set.get(data, {}).values()] for data in sets]
                apart = [mean_of_seeds(group) if group else None for group in groups]
                cells = ["" if part is None else points_text(part) for part in [*apart, mean_of_sets(apart)]]
                yield f"| {way} | {seed_counts(groups)} | {' | '.join(cells)} |"
