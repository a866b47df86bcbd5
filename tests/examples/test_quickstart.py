"""examples/quickstart.ipynb in a kernel of its own, on the trained model that the workflow tests share."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from support.workflow import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SECONDS = 1200  # for one cell, on a busy machine


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_it_is_kept_without_outputs() -> None:
    cells = nbformat.read(str(NOTEBOOK), as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert len(code) > 3 and not [cell for cell in code if cell.outputs or cell.execution_count]


def test_table_and_report(trained_yolov5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTART_WEIGHTS", str(trained_yolov5))  # training would take a minute
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    notebook = nbformat.read(str(NOTEBOOK), as_version=4)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    *_, table, report = (cell for cell in notebook.cells if cell.cell_type == "code")
    first, *rows = printed(table).splitlines()
    assert first.split() == ["mAP@0.5:0.95", "mAP@0.5", "against", "float"]
    (float_map,) = (float(found.group(1)) for found in map(re.compile(r"float +(0\.\d+) \+- ").match, rows) if found)
    assert float_map > 0.1 and "Ship runs/int8/ptq.pt" in printed(table)
    (shown,) = [output.data["text/html"] for output in report.outputs if output.output_type == "display_data"]
    page = Path(printed(report).strip())
    assert tmp_path in page.parents and f"{float_map:.4f}" in page.read_text(encoding="utf-8")
    assert "srcdoc=" in shown and len(shown) > page.stat().st_size
