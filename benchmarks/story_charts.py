"""Charts of published results: accuracy against speed, and two rankings of what costs accuracy."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any, Mapping, Sequence

from engines import TITLES

from quantization.inspector.drawing import EDGE_COLORS
from quantization.inspector.layers import read_export
from quantization.pictures import new_figure

_GREY = "#444444"
_NAMED = 5  # of the groups that cost most
# engine in bench.json, label, placement in ptq-boxes.json by its calibration
_PLACEMENTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("head-float", "--head float", {"before": "--head float"}),
    (
        "rule",
        "--head auto (default)",
        {
            "before": "model.24.m.1 in float, as by --head auto",
            "now": "model.24.m.1 in float, as by --head auto",
        },
    ),
    (
        "head-shared",
        "--head shared",
        {
            "before": "--head shared",
            "now": "--head shared (both shared detect inputs in INT8), the default at the time",
        },
    ),
)
_CALIBRATIONS = {
    "before": ("#9e9e9e", "boxes and scores weighted alike"),
    "now": (EDGE_COLORS["Int8"], "the default"),
}


def speed_chart(engines: Path, accuracy: Path) -> Any:
    """Points of mAP that INT8 costs yolov5s, against images per second.

    Args:
        engines: the folder of yolov5s' engines, with ``bench.json`` and ``models.json``.
        accuracy: the folder with ``ptq-boxes.json`` and ``engines-h100.json``.

    Raises:
        UserError: a file cannot be read, or matplotlib is not installed.
    """
    bench, models = read_export(engines / "bench.json"), read_export(engines / "models.json")
    boxes, trained = read_export(accuracy / "ptq-boxes.json"), read_export(accuracy / "engines-h100.json")
    speeds = {engine["name"]: engine["images_per_s"] for engine in bench["engines"]}
    figure = new_figure(8.8, 5.2)
    axes = figure.subplots()
    _placements(axes, speeds, boxes["runs"], trained["models"]["yolov5s"]["float"]["backends"])
    for engine in ("no-rule", "ptq"):
        speed = speeds[engine]["median"]
        axes.axvline(speed, color="#888888", linestyle="--", linewidth=1)
        text = f"speed of {TITLES[engine]}"
        axes.annotate(text, (speed, 0.64), (-12, 0), textcoords="offset points", color=_GREY, rotation=90, fontsize=9)
    for color, text in _CALIBRATIONS.values():
        axes.plot([], [], "o", color=color, label=f"INT8 PTQ, calibration: {text}")
    axes.legend(loc="upper right", fontsize=9)
    axes.set_ylim(0.66, -0.04)
    axes.set_xlim(right=1.07 * max(speed["max"] for speed in speeds.values()))
    axes.set_xlabel(
        f"images/s ({bench['gpu']}, TensorRT {bench['versions']['tensorrt']}, {models['size']} px, batch {bench['batch']}, "
        f"{models['weights']} weights)\n{_accuracy_note(trained['settings'], boxes)}",
        fontsize=9,
    )
    axes.set_ylabel("points of mAP@0.5:0.95 lost")
    axes.set_title("yolov5s: to the right is faster, up is more accurate", weight="bold")
    axes.grid(alpha=0.3)
    return figure


def _placements(
    axes: Any, speeds: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], floats: Mapping[str, Any]
) -> None:
    """FP16, and each placement in INT8 by its calibrations."""
    base = list(floats["torch"]["map"].values())
    points = _lost(base, list(floats["tensorrt"]["map"].values()))
    _speed_point(axes, speeds["fp16"], points, EDGE_COLORS["FP16"])
    place = (speeds["fp16"]["median"], statistics.mean(points))
    axes.annotate("FP16", place, (8, -14), textcoords="offset points", weight="bold")
    measured = {(run["net"], run["placement"], run["calibration"]): run["map"] for run in runs}
    for engine, label, placements in _PLACEMENTS:
        for calibration, placement in placements.items():
            points = _lost(base, measured["yolov5s", placement, calibration])
            _speed_point(axes, speeds[engine], points, _CALIBRATIONS[calibration][0])
        place = (speeds[engine]["median"], statistics.mean(points))
        side, shift = ("right", (-9, -4)) if engine == "head-float" else ("left", (9, 6))
        axes.annotate(label, place, shift, textcoords="offset points", ha=side, weight="bold")


def sensitivity_chart(result: Path) -> Any:
    """The SQNR of each scale group against the points of mAP that it costs, with the costliest named.

    Args:
        result: what ``benchmarks/sensitivity.py`` wrote.

    Raises:
        UserError: the file cannot be read, or matplotlib is not installed.
    """
    content: Mapping[str, Any] = read_export(result)
    table = sorted(content["table"], key=lambda unit: -unit["points"])
    figure = new_figure(8.8, 4.6)
    axes = figure.subplots()
    axes.plot([unit["sqnr_db"] for unit in table], [unit["points"] for unit in table], "o", color=EDGE_COLORS["Int8"])
    middle = statistics.median(unit["sqnr_db"] for unit in table[:_NAMED])
    for unit in table[:_NAMED]:
        more = len(unit["modules"]) - 1
        name = unit["modules"][0] + (f" + {more}" if more else "")
        side, shift = ("right", -7) if unit["sqnr_db"] <= middle else ("left", 7)
        place = (unit["sqnr_db"], unit["points"])
        axes.annotate(name, place, (shift, -3), textcoords="offset points", ha=side, fontsize=9)
    axes.set_xlim(left=5)
    axes.set_xlabel(
        f"SQNR of the group, dB (one pass, {content['sqnr_seconds']:.1f} s)\n{content['machine']}; {content['images']} "
        f"images{_image_size(content['command'])}, {content['bits']} bits\n{content['net'].split(';')[0]}",
        fontsize=9,
    )
    axes.set_ylabel(f"points of mAP lost with\nthe group alone quantized ({content['sweep_seconds']:.0f} s)")
    axes.set_title(f"SQNR finds what costs mAP: rank correlation {content['spearman']:.2f}", weight="bold")
    axes.grid(alpha=0.3)
    return figure


def _lost(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """Points lost by each seed."""
    return [100 * (before - after) for before, after in zip(base, other)]


def _speed_point(axes: Any, speed: Mapping[str, float], points: Sequence[float], color: str) -> None:
    """Median and mean as a dot, ranges as bars."""
    x, y = speed["median"], statistics.mean(points)
    axes.errorbar(
        x,
        y,
        xerr=[[x - speed["min"]], [speed["max"] - x]],
        yerr=[[y - min(points)], [max(points) - y]],
        fmt="o",
        color=color,
        markersize=8,
        elinewidth=4 if color == _CALIBRATIONS["before"][0] else 1.5,  # two calibrations of one engine share a line
    )


def _accuracy_note(settings: Mapping[str, Any], boxes: Mapping[str, Any]) -> str:
    return (
        f"mAP: mean and range of {len(settings['seeds'])} networks trained on drawn shapes (synthetic), "
        f"{settings['imgsz']} px, {settings['test_images']} images each;\n"
        f"INT8 in ONNX Runtime ({boxes['machine'].split(',')[0]}), FP16 in TensorRT. Speed and accuracy are two measurements"
    )


def _image_size(command: str) -> str:
    found = re.search(r"--imgsz (\d+)", command)
    return f", {found.group(1)} px" if found else ""
