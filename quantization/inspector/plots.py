"""Charts of engines side by side, with matplotlib."""

from __future__ import annotations

import io
from typing import Any, Sequence

from quantization.errors import UserError
from quantization.inspector.classify import KINDS, PRECISIONS
from quantization.inspector.drawing import PRECISION_COLORS
from quantization.inspector.summary import EngineSummary, Tally

_LABELLED = 0.05  # share of the longest bar from which a part has room for its number
_MIXED = ("Reformats", "constants")


def overview(summaries: Sequence[EngineSummary]) -> str:
    """Time by kind (bars side by side) and by precision (one stacked bar per engine), or counts without profiles.

    Returns:
        SVG text, to be put into a page.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("matplotlib is not installed: pip install matplotlib") from error
    timed = all(each.timed for each in summaries)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    kinds, precisions = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(kinds, summaries, timed)
    _stacks(precisions, summaries, timed)
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "engine"}):  # the same picture, byte for byte, for the same engines
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _value(tally: Tally, timed: bool) -> float:
    return 1000 * tally.ms if timed else float(tally.count)


def _bars(axes: Any, summaries: Sequence[EngineSummary], timed: bool) -> None:
    names = [name for name in KINDS if any(_value(each.kinds.get(name, Tally()), timed) for each in summaries)]
    height = 0.8 / len(summaries)
    for number, each in enumerate(summaries):
        places = [index + number * height for index in range(len(names))]
        values = [_value(each.kinds.get(name, Tally()), timed) for name in names]
        axes.bar_label(axes.barh(places, values, height, label=each.name), fmt="%.0f", padding=2, fontsize=8)
    axes.set_yticks([index + height * (len(summaries) - 1) / 2 for index in range(len(names))], names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_title("time by kind, us" if timed else "layers by kind")
    axes.legend(fontsize=8)


def _stacks(axes: Any, summaries: Sequence[EngineSummary], timed: bool) -> None:
    parts = []
    for each in summaries:
        part = {name: _value(tally, timed) for name, tally in each.precisions.items()}
        part["Reformats"] = _value(each.kinds.get("reformat", Tally()), timed)
        part["constants"] = _value(each.kinds.get("constant", Tally()), timed)
        parts.append(part)
    left = [0.0] * len(parts)
    least = _LABELLED * max(sum(part.values()) for part in parts)
    for name in [name for name in (*PRECISIONS, *_MIXED) if any(part.get(name) for part in parts)]:
        values = [part.get(name, 0.0) for part in parts]
        color = {"Reformats": "#c55a11", "constants": "#a6a6a6"}.get(name) or PRECISION_COLORS[name]
        names = [each.name for each in summaries]
        bars = axes.barh(names, values, left=left, label=name, color=color, edgecolor="#555555")
        axes.bar_label(
            bars, [f"{value:.0f}" if value > least else "" for value in values], label_type="center", fontsize=8
        )
        left = [start + value for start, value in zip(left, values)]
    axes.invert_yaxis()
    axes.set_title("time by precision, us" if timed else "layers by precision")
    axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))
