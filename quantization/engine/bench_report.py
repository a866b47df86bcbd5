"""The report of a benchmark: figures of all engines put together, and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

from quantization.engine import timing
from quantization.engine.specs import BenchReport
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
    report: dict[str, Any], asked: BenchReport, info: Mapping[str, Any], results: Mapping[str, Sequence[timing.Round]]
) -> dict[str, Any]:
    """Put settings, build records and figures together, engines in the order they were given."""
    figures = timing.summarize(results, asked.reference, report["batch"]) if results else {}
    engines = [
        {
            "name": spec.name,
            "mode": spec.mode,
            "onnx": spec.onnx,
            "plan": spec.plan,
            "options": dataclasses.asdict(spec.options),
            **info[spec.name],
            **figures.get(spec.name, {}),
        }
        for spec in asked.specs
    ]
    return dict(report, timing=dataclasses.asdict(asked.timed), reference=asked.reference, engines=engines)


def bench_table(report: Mapping[str, Any]) -> Table:
    """The engines beside each other: medians, and minimum to maximum over the rounds."""
    ratio = f"x {report['reference']}"
    columns = ["mode", "qps", "(min-max)", "images/s", "latency ms", "(min-max)", ratio, "MB", "build s"]
    return Table(columns, [Row(engine["name"], _cells(engine)) for engine in report["engines"]])


def _cells(engine: Mapping[str, Any]) -> list[str]:
    seconds, megabytes = engine.get("build_seconds"), engine["engine_bytes"] / 1e6
    size = [f"{megabytes:.1f}", "-" if seconds is None else f"{seconds:.1f}"]
    if "qps" not in engine:
        return [engine["mode"], *["-"] * 6, *size]
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
