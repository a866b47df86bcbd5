"""The table of benchmarks/real.py: differences to float in points, each with its 95 % interval."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Iterable, Sequence

from accuracy_jobs import read_json, write_json
from accuracy_report import machine
from real_pairs import RUNTIMES, compare_ways, pair_lines
from real_runtimes import COMPARED, compare_runtimes, runtime_lines
from real_statistics import coverage, mean_of_seeds
from real_tables import KEYS, table_head, table_row

from quantization.evaluation.wording import FEW_BOXES, points_text
from quantization.files import atomic_write

MACHINE = "machine.json"  # in the work folder: what the figures were measured on
ORDER = ("sqnr", "mse", "entropy", "percentile", "max")


def write_report(work: Path, sets: Sequence[str], out: Path, name: str, pairs: Sequence[tuple[str, str]] = ()) -> None:
    """Write NAME.json and NAME.md of what is done.

    Args:
        work: of the benchmark.
        sets: names of the data sets, in the order of the table.
        out: folder to write into.
        name: of the files, without suffix.
        pairs: ways to compare with each other, the first against the second.
    """
    found = {data: content for data in sets if (content := results_of(work, data))}
    facts = read_json(work / MACHINE, None) or machine()
    compared = {f"{way} against {other}": compare_ways(work, list(found), way, other) for way, other in pairs}
    changes = {title: compare_runtimes(work, list(found), *runtimes) for title, runtimes in COMPARED.items()}
    write_json(out / f"{name}.json", {"machine": facts, "sets": found, "pairs": compared, "runtimes": changes})
    with atomic_write(out / f"{name}.md") as temporary, open(temporary, "w", encoding="utf-8") as file:
        apart = [*pair_lines(compared, list(found)), *runtime_lines(changes, list(found))]
        file.write("\n".join([*lines(found, facts), *apart, *_made_by(found)]) + "\n")


def results_of(work: Path, data: str) -> dict[str, Any]:
    """What one set has: "float", its figures by runtime and "commands", and "ways": the same by way and seed.

    QAT has the figures of its "epochs" too, the first of PTQ. Nothing without the float model's figures.

    Args:
        work: of the benchmark.
        data: name of the set.
    """
    folder = work / "results" / data
    reference = _entry(folder / "float")
    if reference is None:
        return {}
    places = [place for place in folder.iterdir() if place.is_dir() and place.name != "float"]
    ways: dict[str, dict[str, Any]] = {}
    for place in sorted(places, key=_rank):
        seeds = sorted((int(seed.name), _entry(seed)) for seed in place.iterdir() if seed.name.isdigit())
        found = {str(seed): entry for seed, entry in seeds if entry is not None}
        for seed, entry in found.items():
            summary = read_json(work / "models" / data / place.name / f"{seed}-summary.json", {})
            if epochs := summary.get("figures", {}).get("qat", {}).get("epochs"):
                entry["epochs"] = [{key: epoch[key] for key in ("epoch", "map", "map50", "merged")} for epoch in epochs]
        if found:
            ways[place.name] = found
    return {"float": reference, "ways": ways}


def _entry(place: Path) -> dict[str, Any] | None:
    """Figures and commands of one network; None where nothing is measured."""
    contents = {runtime: read_json(place / f"{runtime}.json", None) for runtime in RUNTIMES}
    kept = ("map", "map50", "merged", "per_class", "boxes", "conditions", "plus_minus", "against")
    figures = {
        runtime: {key: content[key] for key in kept} for runtime, content in contents.items() if content is not None
    }
    if not figures:
        return None
    for content in figures.values():
        content["against"] = {Path(name).name: part for name, part in content["against"].items()}
    steps = read_json(place / "steps.json", {})
    return {**figures, "commands": {step: command_text(record["command"]) for step, record in steps.items()}}


def command_text(words: Sequence[str]) -> str:
    """A recorded command in one line, files outside the work folder by their names alone."""
    return " ".join(["python", *(Path(word).name if Path(word).is_absolute() else word for word in words[1:])])


def _rank(place: Path) -> tuple[int, str]:
    kind, _, method = place.name.partition("-")
    return (("ptq", "qat").index(kind) * 10 + (ORDER.index(method) if method in ORDER else 9), place.name)


def lines(found: dict[str, Any], facts: dict[str, Any]) -> Iterable[str]:
    """The report in Markdown, but for the comparison of ways and the commands."""
    yield "# Accuracy on photographs"
    yield ""
    yield (
        "Differences to the float model in points of AP@0.5:0.95 by pycocotools, with half of the width of the 95 % interval "
        '(paired bootstrap over the validation images; the mean over seeds with their spread). In "classes merged" every '
        "box counts the same; in the mean over classes, every class."
    )
    yield ""
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    yield f"{facts['cpu']}, {facts['cores']} cores, GPU: {facts['gpu']}; {versions}."
    for runtime, title in RUNTIMES.items():
        part = {name: content for name, content in found.items() if runtime in content["float"]}
        if part:
            yield from _overview(part, runtime, title)
            yield from _coverage(part, runtime)
    yield from _last_epochs({name: content for name, content in found.items() if "torch" in content["float"]})
    for name, content in found.items():
        yield from _classes(name, content)


def _made_by(found: dict[str, Any]) -> Iterable[str]:
    """The commands behind the figures."""
    yield from ("", "## Made by", "")
    for name, content in found.items():
        runs = {f"{way}, seed {seed}": entry for way, seeds in content["ways"].items() for seed, entry in seeds.items()}
        for label, entry in {"float": content["float"], **runs}.items():
            for step, command in entry["commands"].items():
                yield f"- {name}, {label}, {step}: `{command}`"


def _overview(found: dict[str, Any], runtime: str, title: str) -> Iterable[str]:
    """One table: ways by sets, merged and mean over classes, and the mean of the sets that have all."""
    ways = list(dict.fromkeys(way for content in found.values() for way in content["ways"]))
    for key, words in KEYS.items():
        yield from table_head(f"{title}, {words}", found)
        figures = [content["float"][runtime] for content in found.values()]
        cells = [f"{100 * part[key]:.2f} +- {100 * part['plus_minus'][key]:.2f}" for part in figures]
        yield f"| float | | {' | '.join(cells)} | |"
        for way in ways:
            groups = [differences(content, way, runtime, key) for content in found.values()]
            if any(groups):
                yield table_row(way, groups)
    yield ""
    for name, content in found.items():
        yield f"- {name}: {content['float'][runtime]['conditions']}."


def differences(content: dict[str, Any], way: str, runtime: str, *keys: str) -> list[dict[str, Any]]:
    """Of one set and way, each seed's difference to the float model.

    Args:
        content: of the set, see ``results_of``.
        way: of quantizing.
        runtime: of both.
        keys: where the difference is in the comparison: "map", "merged", or "per_class" and a class.
    """
    found = []
    for entry in content["ways"].get(way, {}).values():
        if runtime in entry:
            part = next(iter(entry[runtime]["against"].values()))
            for key in keys:
                part = part[key]
            found.append(part)
    return found


def _coverage(found: dict[str, Any], runtime: str) -> Iterable[str]:
    """How often one seed's interval holds another seed's figure; nothing where each way has one seed."""
    rows = []
    for kind in ("ptq", "qat"):
        for key, words in KEYS.items():
            groups = [
                differences(content, way, runtime, key)
                for content in found.values()
                for way in content["ways"]
                if way.startswith(kind)
            ]
            inside, pairs = coverage(groups)
            if pairs:
                rows.append(f"- {kind.upper()}, {words}: {inside} of {pairs} ({100 * inside / pairs:.0f} %)")
    if rows:
        yield from ("", "How often the interval of one seed holds the figure of another one:", "", *rows)


def _last_epochs(found: dict[str, Any]) -> Iterable[str]:
    """QAT without the choice of an epoch, means over seeds; nothing where no summary has epochs."""
    rows = []
    for way in dict.fromkeys(way for content in found.values() for way in content["ways"]):
        for key, words in KEYS.items():
            cells = []
            for content in found.values():
                last = [
                    entry["epochs"][-1][key] for entry in content["ways"].get(way, {}).values() if "epochs" in entry
                ]
                points = 100 * (statistics.fmean(last) - content["float"]["torch"][key]) if last else None
                cells.append("" if points is None else f"{points:+.2f}")
            if any(cells):
                rows.append(f"| {way}, {words} | {' | '.join(cells)} |")
    if rows:
        yield from ("", "## QAT's last epoch, torch", "")
        yield "The tables above have the best epoch, which was chosen on their images. Means over seeds:"
        yield from ("", "| | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found), *rows)


def _classes(name: str, content: dict[str, Any]) -> Iterable[str]:
    """Each class of a set in torch; the classes with few boxes of a set with many classes are left to the JSON."""
    figures = content["float"].get("torch")
    ways = [way for way in content["ways"] if differences(content, way, "torch", "merged")]
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
        apart = [mean_of_seeds(differences(content, way, "torch", "per_class", label)) for way in ways]
        value = f"{100 * figures['per_class'][label]:.2f}"
        if figures["boxes"][label] == 1:
            apart = [{**part, "plus_minus": None} for part in apart]  # one box tells nothing of others
        yield f"| {label} | {figures['boxes'][label]} | {value} | {' | '.join(map(points_text, apart))} |"
    left = sum(count > 0 for count in figures["boxes"].values()) - len(shown)
    if left:
        yield from ("", f"{left} classes with fewer than {FEW_BOXES} boxes are in the JSON alone.")
