"""The report of a run folder as one HTML file that loads nothing."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from quantization.errors import UserError
from quantization.evaluation.verdict import boxes_warning, choose_checkpoint
from quantization.files import atomic_write
from quantization.report.folder import Run, read_run, run_file
from quantization.report.sections import Part, parts_of

TEMPLATE = Path(__file__).with_name("template.html")


def write_report(folder: str) -> str:
    """Write the report of a run folder into it.

    Returns:
        The file.

    Raises:
        UserError: the folder is none of a run, or a file in it is not as the commands write it.
    """
    run = read_run(folder)
    try:
        page = report_page(run)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: a JSON in it is not as the commands write it ({reason}): write it again") from error
    file = run_file(folder, "report")
    with atomic_write(file) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
    return file


def report_page(run: Run) -> str:
    """The page."""
    options = run.summary["options"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{Path(str(options.get('weight', 'model'))).name} in INT8"),
        verdict=escape(verdict_line(run)),
        facts=escape(_facts(run)),
        parts="\n".join(map(_part, parts_of(run))),
    )


def verdict_line(run: Run) -> str:
    """What to ship, how fast the engine is where it was timed, and what is wrong."""
    text = choose_checkpoint(run.summary).text
    engines = {engine["name"]: engine for engine in run.bench.get("engines", ())}
    if {"int8", "fp16"} <= set(engines) and "images_per_s" in engines["int8"]:
        fast, slow = (engines[name]["images_per_s"]["median"] for name in ("int8", "fp16"))
        text += f". Its engine runs {fast:.0f} images/s, {fast / slow:.2f} times FP16"
    if run.preflight and not run.preflight["passed"]:
        text += ". The preflight FAILED"
    return f"{text}{boxes_warning(run.engine_accuracy)}."


def _facts(run: Run) -> str:
    versions = run.summary.get("versions", {})
    words = [f"run {str(run.summary.get('run', ''))[:8]}", f"quant-tools {versions.get('quant-tools', '')}"]
    if run.summary.get("stage") != "finished":
        words.append("the run is not finished")
    return ", ".join(words)


def _part(part: Part) -> str:
    title = escape(part.title)
    if part.folded:
        return f"<details><summary><h2>{title}</h2></summary>{part.body}</details>"
    return f"<section><h2>{title}</h2>{part.body}</section>"
