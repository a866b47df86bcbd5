"""Which checkpoint of a quantize run to ship, from the figures in its summary. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from quantization.evaluation.wording import plus_minus_text, points_text
from quantization.tables import Row, Table

TITLES = {"float": "float", "ptq": "PTQ", "qat": "QAT"}
# entry of an engine's figures: its boxes against ONNX Runtime's, ``EngineBoxes`` as a dictionary
COMPARED = "compared_boxes"
COLUMNS = ("mAP@0.5:0.95", "mAP@0.5", "against float")


@dataclass(frozen=True)
class Verdict:
    """What to ship.

    Attributes:
        key: "ptq" or "qat".
        file: the checkpoint.
        text: one line that says why.
    """

    key: str
    file: str
    text: str


def choose_checkpoint(summary: Mapping[str, Any]) -> Verdict:
    """The checkpoint to ship.

    Args:
        summary: content of the summary of a run.
    """
    figures, options = summary["figures"], summary["options"]
    key = "qat" if options.get("qat") and is_better(figures.get("qat"), figures.get("ptq")) else "ptq"
    file = str(options[key])
    if key not in figures:
        return Verdict(
            key, file, f"Ship {file}, unmeasured: --eval-origin --eval-ptq give its mAP and the float model's"
        )
    reasons = []
    if "float" in figures:
        reasons.append(_float_text(figures, key))
    other = "ptq" if key == "qat" else "qat"
    compared = _against(figures.get("qat"), "ptq", "merged")
    if compared is not None:
        apart = f"QAT is at {points_text(compared)} points against {TITLES['ptq']}, classes merged"
        reasons.append(f"{apart}{_noise_text(compared)}")
    elif other in figures:
        distance = 100 * (figures[key]["map"] - figures[other]["map"])
        reasons.append(f"{distance:.2f} points above {TITLES[other]}" if distance else f"level with {TITLES[other]}")
    elif key == "qat":
        reasons.append("PTQ was not measured: --eval-ptq")
    return Verdict(key, file, f"Ship {file}: {TITLES[key]}" + (f", {'; '.join(reasons)}" if reasons else ""))


def is_better(qat: Mapping[str, Any] | None, ptq: Mapping[str, Any] | None) -> bool:
    """Whether QAT is to be shipped rather than PTQ.

    By AP with classes merged, beyond its 95 % interval, where it was compared; else by mAP@0.5:0.95. PTQ where they are level.

    Args:
        qat: figures of the best epoch; None: there are none.
        ptq: figures of the PTQ model; None: it was not measured.
    """
    if qat is None or ptq is None:
        return qat is not None
    found = _against(qat, "ptq", "merged")
    if found is not None:
        return bool(found["points"] > (found["plus_minus"] or 0))
    return bool(qat["map"] > ptq["map"])


def _against(entry: Mapping[str, Any] | None, reference: str, figure: str) -> Mapping[str, Any] | None:
    """Points of a figure above the reference's, and half of their interval's width; None: they were not compared."""
    found = ((entry or {}).get("against") or {}).get(reference, {}).get(figure)
    return None if found is None or found["points"] is None else found


def _float_text(figures: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """``-0.48 +- 0.35 points against float``; without an interval ``0.48 points below float``."""
    found = _against(figures[key], "float", "map")
    if found is None or found["plus_minus"] is None:
        return against_float(points_lost(figures, key))
    return f"{points_text(found)} points against float{_noise_text(found)}"


def _noise_text(found: Mapping[str, Any]) -> str:
    return ", within the noise" if abs(found["points"]) <= (found["plus_minus"] or 0) else ""


def points_lost(figures: Mapping[str, Mapping[str, Any]], key: str) -> float:
    """Points of mAP@0.5:0.95 below the float model; negative above it."""
    return float(100 * (figures["float"]["map"] - figures[key]["map"]))


def against_float(points: float) -> str:
    """``0.48 points below float``.

    Args:
        points: that are lost; negative: gained.
    """
    text = f"{abs(points):.2f}"
    if float(text) == 0:
        return "level with float"
    return f"{text} points {'below' if points > 0 else 'above'} float"


def has_wrong_boxes(engine: Mapping[str, Any]) -> bool:
    """Whether an engine's boxes were found far from ONNX Runtime's.

    Args:
        engine: figures that eval-engine wrote; empty: there are none.
    """
    return bool(engine.get(COMPARED, {}).get("are_wrong"))


def boxes_warning(engine: Mapping[str, Any]) -> str:
    """Sentence on the boxes of an INT8 engine, to be put behind the verdict; empty where there is nothing to warn of.

    Args:
        engine: figures that eval-engine wrote; empty: there are none.
    """
    if has_wrong_boxes(engine):
        return ". Do NOT ship its INT8 engine: its boxes are WRONG, far from ONNX Runtime's"
    if COMPARED in engine and not engine[COMPARED]["are_judged"]:
        return (
            ". Whether its INT8 engine's boxes are right is not known: they could not be compared with ONNX Runtime's"
        )
    return ""


def accuracy_table(
    figures: Mapping[str, Mapping[str, Any]], shipped: str = "", engine: Mapping[str, Any] | None = None
) -> Table:
    """The models of a run beside each other.

    Args:
        figures: of a summary.
        shipped: key of the one to mark.
        engine: figures of the INT8 engine that eval-engine wrote; None or empty: there are none.
    """
    rows = []
    for key, title in TITLES.items():
        if key not in figures:
            continue
        entry = figures[key]
        distance = ""
        if key != "float" and "float" in figures:
            known = _against(entry, "float", "map") or {"points": -points_lost(figures, key), "plus_minus": None}
            distance = f"{points_text(known)} points"
        label = f"{title}, to ship" if key == shipped else title
        rows.append(Row(label, [_figure(entry, "map"), _figure(entry, "map50"), distance]))
    if engine:
        label = "INT8 engine, boxes WRONG" if has_wrong_boxes(engine) else "INT8 engine"
        rows.append(Row(label, [f"{engine['map']:.4f}", f"{engine['map50']:.4f}", ""]))
    return Table(COLUMNS, rows)


def figures_table(label: str, metrics: Mapping[str, Any]) -> Table:
    """One model's figures with their intervals, and its distances in mAP@0.5:0.95 to the references.

    Args:
        label: the model.
        metrics: ``Metrics.content()``.
    """
    against = metrics["against"]
    columns = ("mAP@0.5:0.95", "mAP@0.5", "classes merged", *(f"against {name}" for name in against))
    cells = [_figure(metrics, key) for key in ("map", "map50", "merged")]
    distances = [f"{points_text(found['map'])} points" for found in against.values()]
    return Table(columns, [Row(label, [*cells, *distances])])


def _figure(entry: Mapping[str, Any], key: str) -> str:
    """A figure, with half of its interval's width where the summary has one."""
    return f"{entry[key]:.4f}{plus_minus_text(entry.get('plus_minus', {}).get(key), 4)}"
