"""The pictures as one HTML file that needs nothing else: the worst images first."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from string import Template
from typing import Sequence

from quantization.viewing.differences import FAINT, MOVED, SAME, Match
from quantization.viewing.results import ImageResult, Overview

_TEMPLATE = Path(__file__).with_name("page.html")
LISTED = 8  # differences in words below an image
SORTS = {
    "disagreement": "largest disagreement",
    "errors": "missed and false boxes",
    "missed": "missed labels",
    "false": "false boxes",
    "name": "name",
}
OF_LABELS = ("errors", "missed", "false")


def picture_page(summary: Overview, pictures: Sequence[Sequence[bytes]], files: Sequence[str]) -> str:
    """The page.

    Args:
        summary: ranked.
        pictures: JPEG for each model, of the first images.
        files: the picture file of every image, relative to the page.
    """
    cards = [
        _card(summary, result, sides, file, rank)
        for rank, (result, sides, file) in enumerate(zip(summary.results, pictures, files))
    ]
    rest = [(result, file) for result, file in zip(summary.results, files)][len(cards) :]
    models = [_model(summary, side) for side in range(len(summary.models))]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(" and ".join(Path(model).name for model in summary.models)),
        heading=" &rarr; ".join(models),
        headline=escape(summary.headline),
        settings=escape(_settings(summary)),
        errors=_errors(summary),
        legend=_legend(summary),
        sorts=_sorts(summary),
        cards="\n".join(cards),
        rest=_rest(rest),
    )


def _model(summary: Overview, side: int) -> str:
    height, width = summary.sizes[side]
    return f'<span title="{escape(summary.models[side])}">{escape(Path(summary.models[side]).name)}</span>' + (
        f" <small>{height} x {width}</small>"
    )


def _settings(summary: Overview) -> str:
    text = f"Scores above {summary.confidence:g}, NMS at IoU {summary.iou:g}, images letterboxed to the input size."
    if len(summary.models) > 1:
        text += (
            f" The same object: same class, IoU from {SAME:g}; moved: IoU below {MOVED:g}. The disagreement of an image "
            "is the sum, over its changed boxes, of the larger score less the smaller one times the IoU: a certain box "
            "that one model lacks counts 1."
        )
    drawn = [(title, Path(model).name) for title, model in zip(summary.drawn_titles, summary.models)]
    drawn += [(summary.drawn_name(number), name) for number, name in enumerate(summary.names)]
    replaced = ", ".join(f"{short} is {name}" for short, name in drawn if short != name)
    return f"{text} In the pictures, {replaced}." if replaced else text


def _errors(summary: Overview) -> str:
    if not summary.errors:
        return ""
    rows = "".join(
        f"<tr><td>{escape(Path(model).name)}</td><td>{boxes}</td><td>{missed}</td><td>{false}</td></tr>"
        for model, boxes, missed, false in summary.errors
    )
    head = "<tr><th>against the labels</th><th>boxes</th><th>missed</th><th>false</th></tr>"
    return f"<table>{head}{rows}</table>"


def _legend(summary: Overview) -> str:
    if len(summary.models) == 1:
        entries = [("new", "solid", "found")]
    else:
        first, second = (escape(Path(model).name) for model in summary.models)
        entries = [
            ("kept", "solid", "kept"),
            ("moved", "solid", "moved"),
            ("lost", "solid", f"lost by {second}, dashed where it is missing"),
            ("new", "solid", f"new, not found by {first}"),
        ]
    if summary.errors:
        entries += [("lost", "solid", "found, but in no label")] if len(summary.models) == 1 else []
        entries.append(("missed", "dotted", "labelled, not found"))
    return "".join(f'<li><i class="{kind}" style="border-style:{line}"></i>{text}</li>' for kind, line, text in entries)


def _sorts(summary: Overview) -> str:
    keys = [key for key in SORTS if key not in OF_LABELS or summary.errors]
    keys = [key for key in keys if key != "disagreement" or len(summary.models) > 1]
    return "".join(f'<option value="{key}">{SORTS[key]}</option>' for key in keys)


def _card(summary: Overview, result: ImageResult, sides: Sequence[bytes], file: str, rank: int) -> str:
    check = result.checks[-1] if result.checks else None
    keys = {
        "rank": rank,
        "disagreement": f"{result.disagreement:.4f}",
        "errors": result.errors,
        "missed": len(check.missed) if check else 0,
        "false": len(check.false) if check else 0,
        "name": escape(result.name),
    }
    data = " ".join(f'data-{key}="{value}"' for key, value in keys.items())
    figures = "".join(
        f'<figure><img alt="" loading="lazy" src="data:image/jpeg;base64,{base64.b64encode(side).decode()}">'
        f"<figcaption>{escape(Path(model).name)}: {_caption(result, number)}</figcaption></figure>"
        for number, (model, side) in enumerate(zip(summary.models, sides))
    )
    changes = [_words(summary, match) for match in result.matches if match.kind != "kept"]
    more = [f"<li>and {len(changes) - LISTED} more</li>"] if len(changes) > LISTED else []
    return (
        f'<article {data}><h2>{rank + 1}. <a href="{escape(file)}">{escape(Path(result.name).name)}</a> '
        f"{_chips(summary, result)}</h2><div class=sides>{figures}</div>"
        f"<ul class=changes>{''.join(changes[:LISTED] + more)}</ul></article>"
    )


def _caption(result: ImageResult, side: int) -> str:
    text = f"{len(result.boxes[side])} boxes"
    if result.checks:
        text += f", {len(result.checks[side].missed)} labels missed, {len(result.checks[side].false)} false"
    return text


def _chips(summary: Overview, result: ImageResult) -> str:
    if len(summary.models) == 1:
        return ""
    chips = [f'<b class="{kind}">{result.kinds[kind]} {kind}</b>' for kind in ("lost", "new", "moved", "kept")]
    text = "".join(chip for chip, kind in zip(chips, ("lost", "new", "moved", "kept")) if result.kinds[kind])
    return f"{text}<small>disagreement {result.disagreement:.2f}</small>"


def _words(summary: Overview, match: Match) -> str:
    """A change in words, with what the other model has in that place."""
    box = match.first if match.first is not None else match.second
    scores = ["none" if box is None else f"{box[4]:.2f}" for box in (match.first, match.second)]
    if box is None:
        return ""
    floor = FAINT * summary.confidence
    scores = [f"below {floor:.3g}" if score == "none" else score for score in scores]
    overlap = f", IoU {match.iou:.2f}" if match.iou else ""
    name = escape(summary.class_name(box[5]))
    return f'<li><b class="{match.kind}">{match.kind}</b> {name}: {scores[0]} &rarr; {scores[1]}{overlap}</li>'


def _rest(rest: Sequence[tuple[ImageResult, str]]) -> str:
    if not rest:
        return ""
    links = "".join(f'<li><a href="{escape(file)}">{escape(Path(result.name).name)}</a></li>' for result, file in rest)
    return f"<details><summary>{len(rest)} further images, in pictures/</summary><ul>{links}</ul></details>"
