"""The report of a benchmark: figures of all engines put together, and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

from quantization.engine import timing
from quantization.engine.named_engines import choose_reference
from quantization.engine.specs import BenchReport
from quantization.engine.survivors import Survivors, ending_lines
from quantization.errors import UserError
from quantization.tables import Row, Table


def same_batch(batches: Mapping[str, int]) -> int:
    """The batch size of all engines.

    Raises:
        UserError: they differ, which makes their qps incomparable.
    """
    if len(set(batches.values())) != 1:
        listed = ", ".join(f"{name} {batch}" for name, batch in batches.items())
        raise UserError(
            f"engines of different batch sizes cannot be compared ({listed}): give --batch, or time them "
            "in separate runs"
        )
    return next(iter(batches.values()))


def finish(
    report: dict[str, Any],
    asked: BenchReport,
    info: Mapping[str, Any],
    results: Mapping[str, Sequence[timing.Round]],
    survivors: Survivors,
) -> dict[str, Any]:
    """Put settings, build records and figures together, engines in the order they were given.

    Args:
        report: what is known of the machine and the run.
        asked: the engines.
        info: of each one.
        results: rounds of those that were timed.
        survivors: why others were not.
    """
    problems = survivors.problems
    reference = _reference(asked, results, problems)
    figures = timing.summarize(results, reference, report["batch"]) if results else {}
    engines = [
        {
            "name": spec.name,
            "mode": spec.mode,
            "onnx": spec.onnx,
            "plan": spec.plan,
            "options": dataclasses.asdict(spec.options),
            **info.get(spec.name, {}),
            **figures.get(spec.name, {}),
            **({"problem": problems[spec.name]} if spec.name in problems else {}),
        }
        for spec in asked.specs
    ]
    if reference != asked.reference:
        report["failed_reference"] = asked.reference
    if survivors.ended_by is not None:
        report["ended_by"] = survivors.ended_by
    return dict(report, timing=dataclasses.asdict(asked.timed), reference=reference, engines=engines)


def _reference(asked: BenchReport, results: Mapping[str, Sequence[timing.Round]], problems: Mapping[str, str]) -> str:
    """The engine that ratios are taken to: where the one asked for failed, the default of the others."""
    ran = [spec for spec in asked.specs if (spec.name in results if results else spec.name not in problems)]
    if not ran or any(spec.name == asked.reference for spec in ran):
        return asked.reference
    return choose_reference(ran, None)


def problem_lines(report: Mapping[str, Any]) -> list[str]:
    """Why engines failed, and what is the reference for one that did."""
    lines = [f"{engine['name']}: {engine['problem']}" for engine in report["engines"] if "problem" in engine]
    if "failed_reference" in report:
        lines.append(f"{report['failed_reference']}, the reference, failed: ratios are to {report['reference']}")
    return [*lines, *ending_lines(report, f"run the others again without {report.get('ended_by')}")]


def bench_table(report: Mapping[str, Any]) -> Table:
    """The engines beside each other: medians, and minimum to maximum over the rounds."""
    ratio = f"x {report['reference']}"
    columns = ["mode", "qps", "(min-max)", "images/s", "latency ms", "(min-max)", ratio, "MB", "build s"]
    return Table(columns, [Row(engine["name"], _cells(engine)) for engine in report["engines"]])


def build_cells(engine: Mapping[str, Any]) -> list[str]:
    """Megabytes of an engine, and seconds that its build took; "-" for what is not known."""
    count, seconds = engine.get("engine_bytes"), engine.get("build_seconds")
    return ["-" if count is None else f"{count / 1e6:.1f}", "-" if seconds is None else f"{seconds:.1f}"]


def _cells(engine: Mapping[str, Any]) -> list[str]:
    size = build_cells(engine)
    if "qps" not in engine:
        return [engine["mode"], "failed" if "problem" in engine else "-", *["-"] * 5, *size]
    qps, latency = engine["qps"], engine["latency_ms"]
    return [
        engine["mode"],
        f"{qps['median']:.1f}",
        f"{qps['min']:.1f}-{qps['max']:.1f}",
        f"{engine['images_per_s']['median']:.0f}",
        f"{latency['median']:.3f}",
        f"{latency['min']:.3f}-{latency['max']:.3f}",
        f"{engine['ratio']['median']:.3f}",
        *size,
    ]
