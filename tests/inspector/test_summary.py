"""Figures of engines side by side."""

from __future__ import annotations

from quantization.inspector.summary import figures, summarise
from support.engine_files import load_graph, without_times


def test_what_takes_no_time_has_no_row_but_is_in_the_sum() -> None:
    graphs = [load_graph(name) for name in ("yolov5s-groups", "yolov5s-fp16")]
    rows = figures([summarise(graph) for graph in graphs]).rows
    assert not [row.label for row in rows if row.cells and all(" 0.0 us" in cell for cell in row.cells)]
    silent = {layer.kind for graph in graphs for layer in graph.layers if not layer.time_ms}
    assert "no-op" in silent and "no-op" not in {row.label for row in rows}
    total = next(row for row in rows if row.label == "sum")
    assert [int(cell.split()[0]) for cell in total.cells] == [len(graph.layers) for graph in graphs]


def test_without_times_every_kind_is_counted() -> None:
    graph = without_times(load_graph("yolov5s-groups"))
    rows = figures([summarise(graph)]).rows
    kinds = rows[2 : next(number for number, row in enumerate(rows) if row.label == "sum")]
    assert "no-op" in {row.label for row in kinds}
    assert sum(int(row.cells[0]) for row in kinds) == len(graph.layers)
