"""The sections of the report: accuracy, speed, training, engine, preflight, sensitivity, scales, how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any, Mapping, Sequence

from quantization.engine.bench_report import bench_table
from quantization.evaluation.verdict import COMPARED, TITLES, accuracy_table, choose_checkpoint, has_wrong_boxes
from quantization.inspector.names import counted
from quantization.ranges.group_scales import WARN_RATIO
from quantization.report.charts import bars_html, curve_svg, deciding_figure
from quantization.report.folder import FILES, Run
from quantization.tables import Row, Table, table_html

SHOWN = 15  # bars, and shared scales, that are not folded


@dataclass(frozen=True)
class Part:
    """A section.

    Attributes:
        title: its heading.
        body: HTML.
        folded: whether it is shown closed.
    """

    title: str
    body: str
    folded: bool = False


def parts_of(run: Run) -> list[Part]:
    """All sections that the folder has something for, the most wanted first."""
    found = [
        _accuracy(run),
        _speed(run),
        _training(run),
        _following(run),
        _preflight(run),
        _engine(run),
        _sensitivity(run),
        _classes(run),
        _scales(run),
        _commands(run),
        _options(run),
    ]
    return [part for part in found if part is not None]


def _accuracy(run: Run) -> Part | None:
    figures = run.summary["figures"]
    if not figures:
        return None
    engine = run.engine_accuracy
    table = accuracy_table(figures, choose_checkpoint(run.summary).key, engine)
    measured = next(iter(figures.values()))
    interval = "; +-: 95 % interval" if measured.get("plus_minus") else ""
    note = f"Measured on {measured.get('conditions') or counted(measured['images'], 'image')}{interval}."
    body = f"{table_html(table)}<p class=note>{escape(note)}</p>"
    if COMPARED in engine:
        kind = "bad" if has_wrong_boxes(engine) else "note"
        body += f"<p class={kind}>Boxes of the INT8 engine: {escape(engine[COMPARED]['text'])}.</p>"
    return Part("Accuracy", body)


def _speed(run: Run) -> Part | None:
    if not run.bench:
        return None
    versions = ", ".join(f"{name} {text}" for name, text in run.bench["versions"].items())
    note = f"{run.bench.get('gpu', '')}, batch {run.bench.get('batch', '-')}; {versions}"
    return Part("Speed", f"{table_html(bench_table(run.bench))}<p class=note>{escape(note)}</p>")


def _training(run: Run) -> Part | None:
    if not run.summary["figures"].get("qat", {}).get("epochs"):
        return None
    figures = run.summary["figures"]
    what = "AP@0.5:0.95, classes merged" if deciding_figure(figures) == "merged" else "mAP@0.5:0.95"
    zero = "; epoch 0 is PTQ" if figures["qat"]["epochs"][0]["epoch"] == 0 else ""
    return Part("QAT", f"{curve_svg(figures)}<p class=note>{what}, in points; large: saved{zero}.</p>")


def _following(run: Run) -> Part | None:
    """What is left to do on the target."""
    lines = run.record.get("target")
    if run.bench or not lines:
        return None
    return Part("Next, on the target", _code(lines))


def _preflight(run: Run) -> Part | None:
    report = run.preflight
    if not report:
        return None
    share = f"{100 * report['int8_macs'] / report['macs']:.1f} % of MACs" if report["macs"] else "share unknown"
    queued = report["separate_q"]
    lines = [
        f"<p><b class={'good' if report['passed'] else 'bad'}>{'passed' if report['passed'] else 'FAILED'}</b>: "
        f"{int(report['int8_layers'])} of {int(report['layers'])} layers in INT8, {escape(share)}. TensorRT is predicted to "
        f"insert {counted(int(sum(queued.values())), 'Q kernel')} ({int(queued['avoidable'])} avoidable) and "
        f"{counted(int(report['type_changing']), 'Reformat')} for a change of type.</p>"
    ]
    items = [
        f"<li><b class={'bad' if item['severity'] == 'fail' else 'plain'}>{escape(item['severity'])}</b> "
        f"{escape(item['what'])}<br><span class=advice>Change: {escape(item['change'])}</span></li>"
        for item in report["findings"]
    ]
    return Part("Preflight", "".join(lines) + (f"<ul>{''.join(items)}</ul>" if items else ""))


def _engine(run: Run) -> Part | None:
    body = ""
    if run.comparison:
        body += f'<p><a href="{escape(run.comparison)}">Both engines beside each other, with what costs time</a></p>'
    if run.drawing:
        image = f'<img alt="layers of the INT8 engine" src="data:image/svg+xml;base64,{run.drawing}">'
        link = f'<a href="{FILES["drawing"]}">larger</a>'
        body += f"<details><summary>Drawing of the INT8 engine</summary><p>{link}</p><div class=drawing>{image}</div></details>"
    return Part("Engine", body) if body else None


def _sensitivity(run: Run) -> Part | None:
    content = run.sensitivity
    if "units" in content:
        bars = [
            (_shortened(unit["modules"]), unit["share"], f"{100 * unit['share']:.1f} %, {unit['sqnr_db']:.1f} dB")
            for unit in content["units"][:SHOWN]
        ]
        what = f"share of the error energy in the detections, {content['images']} images"
    elif "layers" in content:
        bars = [
            (f"{layer['layer']} {layer['type']}", max(layer["gain"], 0.0), f"{100 * layer['gain']:+.2f} points")
            for layer in content["layers"][:SHOWN]
        ]
        what = "mAP@0.5:0.95 that comes back with one layer in float"
    else:
        return None
    return Part("Sensitivity", f"{bars_html(bars)}<p class=note>The first {len(bars)}: {escape(what)}.</p>")


def _classes(run: Run) -> Part | None:
    """AP by class, what quantization costs most first: that of the checkpoint to ship."""
    figures = run.summary["figures"]
    keys = [key for key in TITLES if key in figures]
    if not keys:
        return None
    shipped = choose_checkpoint(run.summary).key
    first, last = keys[0], shipped if shipped in keys[1:] else keys[-1]
    per_class = {key: figures[key]["per_class"] for key in keys}
    names = [name for name, value in per_class[first].items() if value >= 0]
    names.sort(key=lambda name: per_class[last][name] - per_class[first][name])
    columns = [TITLES[key] for key in keys] + ([f"{TITLES[last]} against {TITLES[first]}"] if len(keys) > 1 else [])
    rows = []
    for name in names:
        values = [per_class[key][name] for key in keys]
        apart = [f"{100 * (per_class[last][name] - per_class[first][name]):+.2f}"] if len(keys) > 1 else []
        rows.append(Row(name, [f"{value:.4f}" for value in values] + apart))
    absent = len(per_class[first]) - len(names)
    note = "AP@0.5:0.95; differences in points." + (f" No box of {counted(absent, 'class')}." if absent else "")
    body = f"<p class=note>{note}</p>{table_html(Table(columns, rows))}"
    return Part(f"Classes ({len(names)})", body, folded=True)


def _scales(run: Run) -> Part | None:
    """Groups of tensors with one scale: the ranges that their readers would have had, the most unequal first."""
    shared: Sequence[Mapping[str, Any]] = run.summary.get("shared_scales") or ()
    if not shared:
        return None
    rows = [
        Row(
            _shortened([name for reader in scale["readers"] for name in reader], 3),
            [f"{scale['amax']:.4g}", " / ".join(f"{value:.4g}" for value in scale["own"]), f"{scale['ratio']:.2f}"],
        )
        for scale in sorted(shared, key=lambda scale: -scale["ratio"])
    ]
    columns = ("range", "ranges of its members alone", "largest / smallest")
    high = sum(scale["ratio"] > WARN_RATIO for scale in shared)
    groups = sum(len(group) > 1 for group in run.summary.get("groups") or ())  # as preflight counts them
    note = f"{counted(groups, 'scale group')}, {len(rows)} of them of several tensors; " + (
        f"{high} have ranges more than {WARN_RATIO:g} times apart." if high else "no ranges are far apart."
    )
    body = f"<p class=note>{escape(note)}</p>{table_html(Table(columns, rows[:SHOWN]))}"
    if len(rows) > SHOWN:
        more = table_html(Table(columns, rows[SHOWN:]))
        body += f"<details><summary>{len(rows) - SHOWN} more</summary>{more}</details>"
    return Part("Shared scales", body, folded=True)


def _commands(run: Run) -> Part | None:
    """What was run; what is left to run has a section of its own."""
    if "command" not in run.record:
        return None
    done = run.record.get("target", ()) if run.bench else ()
    return Part("Command lines", _code([run.record["command"], *done]), folded=True)


def _options(run: Run) -> Part | None:
    options = {
        **run.record.get("options", {}),
        **run.summary["options"],
    }  # what followed from the data is in the latter
    versions = Table(("",), [Row(name, [str(text)]) for name, text in run.summary.get("versions", {}).items()])
    chosen = Table(("",), [Row(name.replace("_", "-"), [_plain(value)]) for name, value in sorted(options.items())])
    return Part(
        "Options and versions", f"<div class=options>{table_html(versions)}{table_html(chosen)}</div>", folded=True
    )


def _plain(value: Any) -> str:
    if value is None or value == []:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _code(lines: Sequence[str]) -> str:
    """Command lines, which break between words alone: a line that is copied is what it was."""
    return "".join(
        f"<pre>{' '.join(f'<span>{escape(word)}</span>' for word in line.split(' '))}</pre>" for line in lines
    )


def _shortened(names: Sequence[str], most: int = 2) -> str:
    """The first names and how many more there are."""
    more = f" + {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
