"""Tables of benchmarks/accuracy.py: the mAP that each way of quantizing costs, mean and range over the seeds."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Iterable, Sequence

from accuracy_jobs import read_json, write_json
from accuracy_plan import NMS_THRESHOLD, Experiment, Run

from quantization.files import atomic_write

BACKENDS = {"torch": "torch fake quant", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "pycocotools")


def machine() -> dict[str, Any]:
    """Processor, cores, GPUs, and versions of the packages that figures depend on."""
    cpu = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if file.is_file():
        match = re.search(r"model name\s*: (.+)", file.read_text())
        cpu = match.group(1).strip() if match else cpu
    gpus = ""
    if shutil.which("nvidia-smi"):
        query = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], stdout=subprocess.PIPE, text=True
        )
        gpus = ", ".join(query.stdout.split("\n")).strip(", ") if query.returncode == 0 else ""
    installed = {str(package.metadata["Name"]): package.version for package in metadata.distributions()}
    versions = {name: version for name, version in sorted(installed.items()) if name in PACKAGES}
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpus or "none",
        "versions": {"python": platform.python_version(), **versions},
    }


def unique(items: Iterable[Any]) -> list[Any]:
    """Each item once, in the order of their first."""
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def spread(values: Sequence[float]) -> dict[str, float | None] | None:
    """Mean, minimum, maximum and sample standard deviation (None for one value); None without values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "mean": statistics.fmean(values),
        "min": min(values),
        "max": max(values),
        "sd": deviation,
        "seeds": len(values),
    }


def collect(experiments: Sequence[Experiment], runs: Sequence[Run]) -> dict[str, Any]:
    """All figures by model, run and backend; drops in points of 100, against the same seed's float model in torch."""
    models: dict[str, Any] = {}
    failed: list[dict[str, object]] = []
    for experiment in experiments:
        table = models.setdefault(experiment.model, {run.name: {"title": run.title, "backends": {}} for run in runs})
        base = read_json(experiment.results / "float" / "torch.json", None)
        for name in ("train", *(run.name for run in runs)):
            failure = read_json(experiment.results / name / "failed.json", None)
            if failure is not None:
                place = {"model": experiment.model, "seed": experiment.seed, "run": name}
                failed.append({**place, "step": failure["step"], "message": failure["message"]})
        for run in runs:
            for backend in BACKENDS:
                figures = read_json(experiment.results / run.name / f"{backend}.json", None)
                if figures is not None:
                    cell = table[run.name]["backends"].setdefault(backend, {"map": {}, "map50": {}, "drop": {}})
                    cell["map"][experiment.seed] = figures["map"]
                    cell["map50"][experiment.seed] = figures["map50"]
                    if base is not None:
                        cell["drop"][experiment.seed] = 100 * (base["map"] - figures["map"])
    for table in models.values():
        for row in table.values():
            for cell in row["backends"].values():
                cell["drop_spread"] = spread(list(cell["drop"].values()))
                cell["map_spread"] = spread(list(cell["map"].values()))
    return {"models": models, "failed": failed}


def cell_text(cell: dict[str, Any] | None, seeds: int) -> str:
    """``0.31 (0.22 to 0.40)``; with the number of seeds where some are missing; a dash for nothing."""
    found = cell["drop_spread"] if cell else None
    if found is None:
        return "-"
    # + 0.0: no minus before a zero
    mean, low, high = (round(found[key], 2) + 0.0 for key in ("mean", "min", "max"))
    text = f"{mean:.2f} ({low:.2f} to {high:.2f})"
    return text if found["seeds"] == seeds else f"{text}, {found['seeds']} of {seeds} seeds"


def introduction(content: dict[str, Any]) -> list[str]:
    """What was trained, evaluated and run on, as lines."""
    settings = content["settings"]
    lines = [
        "# Accuracy on drawn shapes",
        "",
        "The images are synthetic: drawn shapes (benchmarks/shapes.py), not photographs. The figures compare ways of "
        "quantizing; they say nothing about accuracy on COCO.",
        "",
        f"Each model is trained by upstream's train.py from random weights, {settings['epochs']} epochs on "
        f"{settings['images']} images at {settings['imgsz']} pixels ({settings['classes']} classes, "
        f"{settings['objects']} objects per image, difficulty {settings['difficulty']:g}, objects up to "
        f"{settings['largest']:g} of the image). Seeds: {', '.join(map(str, settings['seeds']))}; a seed determines "
        "the images, the training and the calibration images (other bundles choose their own). mAP by "
        f"pycocotools on {settings['test_images']} images that neither training nor the choice of QAT's epoch has "
        f"seen, square, NMS at IoU {NMS_THRESHOLD:g}.",
        "",
    ]
    for here in unique(call["machine"] for call in content["calls"]):
        versions = {**here["versions"], **content["tensorrt"]}
        lines.append(
            f"{here['cpu']}, {here['cores']} cores, GPU: {here['gpu']}; "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + "."
        )
    return lines


def markdown(content: dict[str, Any]) -> str:
    """The report for people."""
    seeds = len(content["settings"]["seeds"])
    lines = introduction(content)
    for model, table in content["models"].items():
        base = table["float"]["backends"].get("torch")
        lines += ["", f"## {model}", ""]
        if base is None:
            lines.append("No figures.")
            continue
        found = base["map_spread"]
        low, mean, high = (f"{100 * found[key]:.2f}" for key in ("min", "mean", "max"))
        lines += [
            f"Float: mAP@0.5:0.95 {mean} ({low} to {high}) in torch. Points lost against it, same seed: mean "
            "(minimum to maximum).",
            "",
        ]
        shown = [backend for backend in BACKENDS if any(backend in row["backends"] for row in table.values())]
        lines += ["| | " + " | ".join(BACKENDS[backend] for backend in shown) + " |", "|---|" + "---:|" * len(shown)]
        for row in table.values():
            cells = [cell_text(row["backends"].get(backend), seeds) for backend in shown]
            lines.append(f"| {row['title']} | " + " | ".join(cells) + " |")
    if content["failed"]:
        lines += ["", "## Failed", ""]
        lines += [
            f"- {failure['model']}, seed {failure['seed']}, {failure['run']}, {failure['step']}: `{failure['message']}`"
            for failure in content["failed"]
        ]
    lines += ["", "## Made by", ""]
    lines += [f"    {call['command']}    # {call['date']}" for call in content["calls"]]
    return "\n".join(lines) + "\n"


def report(
    options: argparse.Namespace, experiments: Sequence[Experiment], runs: Sequence[Run], settings: dict[str, Any]
) -> None:
    """Write NAME.md and NAME.json, and print the tables."""
    calls = read_json(options.work / "calls.json", [])
    tensorrt = {}
    for file in sorted((options.work / "plans").glob("*.json")):
        tensorrt.update(
            {name: version for name, version in read_json(file, {}).get("versions", {}).items() if name == "tensorrt"}
        )
    steps = {
        f"{experiment.name}/{folder.parent.name}": read_json(folder, {})
        for experiment in experiments
        for folder in sorted(experiment.results.glob("*/*.json"))
        if folder.name in ("steps.json", "train.json")
    }
    content = {
        "settings": {**settings, "seeds": options.seeds, "models": options.models},
        "calls": calls,
        "tensorrt": tensorrt,
        **collect(experiments, runs),
        "steps": steps,
    }
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{options.name}.json", content)
    text = markdown(content)
    with atomic_write(out / f"{options.name}.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)
