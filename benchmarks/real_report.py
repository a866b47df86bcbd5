"""The table of benchmarks/real.py: differences to float in points, each with its 95 % interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Iterable, Sequence

from accuracy_jobs import read_json, write_json
from accuracy_report import machine

from quantization.evaluation.wording import FEW_BOXES, points_text
from quantization.files import atomic_write

RUNTIMES = {"torch": "torch", "onnxruntime": "ONNX Runtime"}
ORDER = ("sqnr", "mse", "entropy", "percentile", "max")


def write_report(work: Path, sets: Sequence[str], out: Path, name: str) -> None:
    """Write NAME.json and NAME.md of what is done.

    Args:
        work: of the benchmark.
        sets: names of the data sets, in the order of the table.
        out: folder to write into.
        name: of the files, without suffix.
    """
    found = {data: content for data in sets if (content := results_of(work / "results" / data))}
    write_json(out / f"{name}.json", {"machine": machine(), "sets": found})
    with atomic_write(out / f"{name}.md") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\n".join(lines(found, machine())) + "\n")


def results_of(folder: Path) -> dict[str, Any]:
    """What one set has: way of quantizing to "commands" and, by runtime, the figures; only with the float model's."""
    found: dict[str, Any] = {}
    for place in sorted(folder.iterdir(), key=_rank) if folder.is_dir() else ():
        entry = {runtime: read_json(place / f"{runtime}.json", None) for runtime in RUNTIMES}
        entry = {runtime: content for runtime, content in entry.items() if content is not None}
        if entry:
            steps = read_json(place / "steps.json", {})
            commands = {step: command_text(record["command"]) for step, record in steps.items()}
            kept = ("map", "map50", "merged", "per_class", "boxes", "conditions", "plus_minus", "against")
            figures = {runtime: {key: content[key] for key in kept} for runtime, content in entry.items()}
            for content in figures.values():
                content["against"] = {Path(network).name: apart for network, apart in content["against"].items()}
            found[place.name] = {**figures, "commands": commands}
    return found if "float" in found else {}


def command_text(words: Sequence[str]) -> str:
    """A command in one line, files outside the work folder by their names alone."""
    return " ".join(["python", *(Path(word).name if Path(word).is_absolute() else word for word in words[1:])])


def _rank(place: Path) -> tuple[int, str]:
    kind, _, method = place.name.partition("-")
    return (("float", "ptq", "qat").index(kind) * 10 + (ORDER.index(method) if method in ORDER else 9), place.name)


def lines(found: dict[str, Any], facts: dict[str, Any]) -> Iterable[str]:
    """The report in Markdown."""
    yield "# Accuracy on photographs"
    yield ""
    yield (
        "Differences to the float model in points of AP@0.5:0.95 by pycocotools, with half of the width of the 95 % interval "
        '(paired bootstrap over the validation images). In "classes merged" every box counts the same; in the mean over '
        "classes, every class."
    )
    yield ""
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    yield f"{facts['cpu']}, {facts['cores']} cores, GPU: {facts['gpu']}; {versions}."
    for runtime, title in RUNTIMES.items():
        if any(runtime in runs["float"] for runs in found.values()):
            yield from _overview(found, runtime, title)
    for name, runs in found.items():
        yield from _classes(name, runs)
    yield from ("", "## Made by", "")
    for name, runs in found.items():
        for way, content in runs.items():
            for step, command in content["commands"].items():
                yield f"- {name}, {way}, {step}: `{command}`"


def _overview(found: dict[str, Any], runtime: str, title: str) -> Iterable[str]:
    """One table: ways by sets, merged and mean over classes, and the mean of the sets that have all."""
    found = {name: runs for name, runs in found.items() if runtime in runs["float"]}
    ways = list(dict.fromkeys(way for runs in found.values() for way in runs if way != "float"))
    for key, words in (("merged", "classes merged"), ("map", "mean over classes")):
        yield from ("", f"## {title}, {words}", "")
        yield "| | " + " | ".join(found) + " | mean |"
        yield "|---|" + "---:|" * (len(found) + 1)
        figures = [runs["float"][runtime] for runs in found.values()]
        cells = [f"{100 * part[key]:.2f} +- {100 * part['plus_minus'][key]:.2f}" for part in figures]
        yield f"| float | {' | '.join(cells)} | |"
        for way in ways:
            apart = [_against(runs.get(way, {}).get(runtime), key) for runs in found.values()]
            row = ["" if part is None else points_text(part) for part in apart]
            yield f"| {way} | {' | '.join(row)} | {_mean(apart)} |"
    yield ""
    for name, runs in found.items():
        yield f"- {name}: {runs['float'][runtime]['conditions']}."


def _against(figures: dict[str, Any] | None, key: str) -> dict[str, Any] | None:
    """The difference to the one network that figures were compared with."""
    return None if figures is None else next(iter(figures["against"].values()))[key]


def _mean(apart: Sequence[dict[str, Any] | None]) -> str:
    """The mean over the sets, which are independent; empty where one is missing."""
    if len(apart) < 2 or any(part is None or part["points"] is None for part in apart):
        return ""
    known = [part for part in apart if part is not None]
    width = math.sqrt(sum((part["plus_minus"] or 0.0) ** 2 for part in known)) / len(known)
    return points_text({"points": sum(part["points"] for part in known) / len(known), "plus_minus": width})


def _classes(name: str, runs: dict[str, Any]) -> Iterable[str]:
    """Each class of a set in torch; the classes with few boxes of a set with many classes are left to the JSON."""
    figures = runs["float"].get("torch")
    ways = [way for way in runs if way != "float" and "torch" in runs[way]]
    if figures is None or not ways:
        return
    shown = [
        label
        for label, count in figures["boxes"].items()
        if count >= FEW_BOXES or (0 < count and len(figures["boxes"]) < 10)
    ]
    yield from ("", f"## {name}, per class, torch", "")
    yield "| class | boxes | float | " + " | ".join(ways) + " |"
    yield "|---|---:|---:|" + "---:|" * len(ways)
    for label in shown:
        apart = [next(iter(runs[way]["torch"]["against"].values()))["per_class"][label] for way in ways]
        value = f"{100 * figures['per_class'][label]:.2f}"
        if figures["boxes"][label] == 1:
            apart = [{**part, "plus_minus": None} for part in apart]  # one box tells nothing of others
        yield f"| {label} | {figures['boxes'][label]} | {value} | {' | '.join(map(points_text, apart))} |"
    left = sum(count > 0 for count in figures["boxes"].values()) - len(shown)
    if left:
        yield from ("", f"{left} classes with fewer than {FEW_BOXES} boxes are in the JSON alone.")
