"""The report of a tuning run: one table, which engines are worth having, and how to make the one to take."""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

from quantization.closing import command_line
from quantization.engine.bench_report import build_cells
from quantization.engine.tune import REFERENCE
from quantization.engine.variant_folder import VariantFolder
from quantization.tables import Row, Table

FRONT_MARK = "*"


def is_timed(engine: Mapping[str, Any]) -> bool:
    """Whether an engine has figures."""
    return "images_per_s" in engine


def pareto_front(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the engines than which none is both faster and more accurate; none where no accuracy is known."""
    points = [
        (engine["name"], engine["images_per_s"]["median"], engine["accuracy"]["map"])
        for engine in engines
        if is_timed(engine) and "accuracy" in engine
    ]
    return [
        name
        for name, speed, accuracy in points
        if not any(s >= speed and a >= accuracy and (s > speed or a > accuracy) for _, s, a in points)
    ]


def loss_of(engine: Mapping[str, Any]) -> float | None:
    """Points of mAP@0.5:0.95 that an engine loses against the reference; None where that is not known."""
    if engine["name"] == REFERENCE:
        return 0.0
    points = engine.get("accuracy", {}).get("points")
    return None if points is None else -float(points)


def choose_engine(engines: Sequence[Mapping[str, Any]], max_drop: float) -> Mapping[str, Any] | None:
    """The fastest engine; where accuracies are known, of those that lose no more than ``max_drop`` points."""
    timed = [engine for engine in engines if is_timed(engine)]
    if any("points" in engine.get("accuracy", {}) for engine in timed):
        losses = {engine["name"]: loss_of(engine) for engine in timed}
        timed = [engine for engine in timed if (loss := losses[engine["name"]]) is not None and loss <= max_drop]
    return max(timed, key=lambda engine: float(engine["images_per_s"]["median"]), default=None)


def faster_than_reference(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the INT8 engines that did more images a second than FP16 in every round."""
    return [
        engine["name"]
        for engine in engines
        if is_timed(engine) and engine["mode"] in ("ptq", "qat") and engine["ratio"]["min"] > 1
    ]


def verdict_lines(engines: Sequence[Mapping[str, Any]], max_drop: float) -> list[str]:
    """What the table says, in sentences."""
    lines = [
        f"{engine['name']}: {engine[key]}" for engine in engines for key in ("problem", "unmeasured") if key in engine
    ]
    chosen = choose_engine(engines, max_drop)
    if chosen is None:
        return [*lines, "No engine could be timed."]
    has_reference = any(engine["name"] == REFERENCE and is_timed(engine) for engine in engines)
    if has_reference and not faster_than_reference(engines):
        lines.append("No INT8 engine beats FP16 on this GPU: none was faster in every round.")
    within = " of those timed"
    if any("points" in engine.get("accuracy", {}) for engine in engines):
        within = f" of those that lose at most {max_drop:g} points of mAP@0.5:0.95 against FP16"
    speed = f"{chosen['images_per_s']['median']:.0f} images/s"
    times = f", {chosen['ratio']['median']:.3f} times FP16" if has_reference else ""
    lines.append(f"Fastest{within}: {chosen['name']}, {speed}{times}.")
    near = [
        engine["name"]
        for engine in engines
        if is_timed(engine)
        and engine["name"] != chosen["name"]
        and engine["ratio"]["max"] >= chosen["ratio"]["min"]
        and engine["images_per_s"]["median"] <= chosen["images_per_s"]["median"]
    ]
    return [*lines, f"As fast within the spread of the rounds: {', '.join(near)}."] if near else lines


def tune_table(engines: Sequence[Mapping[str, Any]]) -> Table:
    """The engines beside each other: medians, and minimum to maximum over the rounds."""
    columns = ["mode", "images/s", "(min-max)", f"x {REFERENCE}", "(min-max)"]
    measured = any("accuracy" in engine for engine in engines)
    columns += ["mAP", f"- {REFERENCE}, points", "front"] if measured else []
    front = pareto_front(engines)
    rows = []
    for engine in engines:
        cells = [engine["mode"], *_speed_cells(engine)]
        if measured:
            cells += [*_accuracy_cells(engine), FRONT_MARK if engine["name"] in front else ""]
        rows.append(Row(engine["name"], [*cells, *build_cells(engine)]))
    return Table([*columns, "MB", "build s"], rows)


def _speed_cells(engine: Mapping[str, Any]) -> list[str]:
    if not is_timed(engine):
        return ["failed" if "onnx" in engine else "skipped", "-", "-", "-"]
    speed, ratio = engine["images_per_s"], engine["ratio"]
    return [
        f"{speed['median']:.0f}",
        f"{speed['min']:.0f}-{speed['max']:.0f}",
        f"{ratio['median']:.3f}",
        f"{ratio['min']:.3f}-{ratio['max']:.3f}",
    ]


def _accuracy_cells(engine: Mapping[str, Any]) -> list[str]:
    found = engine.get("accuracy")
    if found is None:
        return ["-", "-"]
    apart = "-"
    if found.get("points") is not None:
        width = "" if found.get("plus_minus") is None else f" +- {found['plus_minus']:.2f}"
        apart = f"{found['points']:+.2f}{width}"
    return [f"{found['map']:.4f}", apart]


def reuse_lines(chosen: Mapping[str, Any], folder: VariantFolder) -> list[str]:
    """The command lines that make the chosen engine's ONNX and engine again."""
    script = f"qat-{folder.upstream}.py"
    file = os.path.basename(str(chosen.get("onnx")))
    variant = next((entry for entry in folder.variants if entry.file == file), None)
    if chosen.get("onnx") is None or variant is None:
        return []
    lines = [command_line(script, *variant.quantize)] if variant.quantize else []
    return [*lines, command_line(script, *variant.export)]
