"""Engines of ``tests/fixtures/engine``, read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quantization.inspector.compare import Comparison
from quantization.inspector.layers import load_layers
from quantization.inspector.page import rest_html, top_html
from quantization.inspector.records import EngineInfo
from quantization.inspector.report import report_comparison
from quantization.inspector.text import engine_text
from quantization.inspector.times import add_profile
from quantization.inspector.topology import EngineGraph

ENGINES = Path(__file__).parents[1] / "fixtures" / "engine"


def load_engine(name: str, profile: bool = True, index: int | None = None) -> EngineInfo:
    """The layers of NAME-layer.json, with the times of NAME-profile.json."""
    engine = load_layers(ENGINES / f"{name}-layer.json", profile_index=index)
    return add_profile(engine, ENGINES / f"{name}-profile.json") if profile else engine


def load_graph(name: str, profile: bool = True, index: int | None = None) -> EngineGraph:
    """``load_engine`` with its edges."""
    return EngineGraph(load_engine(name, profile, index))


def without_times(graph: EngineGraph) -> EngineGraph:
    """The same engine, no profile given."""
    layers = [replace(layer, time_ms=None) for layer in graph.layers]
    return EngineGraph(replace(graph.engine, layers=layers))


def comparison_text(comparison: Comparison) -> str:
    """The report for a terminal."""
    return engine_text(report_comparison(comparison))


def comparison_html(comparison: Comparison) -> str:
    """The report for a page."""
    report = report_comparison(comparison)
    return top_html(report) + rest_html(report)
