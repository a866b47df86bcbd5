"""DOT text and pictures: quoting, and what is said where Graphviz is missing or fails."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from quantization.dot import literal, new_digraph, render
from quantization.errors import UserError
from support.house import ROOT
from support.workflow import SUPPORT, run_python

SVG = "{http://www.w3.org/2000/svg}"
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz dot is not installed")


@needs_dot
def test_text_is_drawn_as_it_is() -> None:
    odd = ["", " ", 'a"b', "<b>&amp;</b>", "back\\slash\\", "\\N", "<", "<>"]
    dot = new_digraph("odd")
    for number, text in enumerate(odd):
        dot.node(f"n{number}", literal(text), id=f"n{number}")
    root = ElementTree.fromstring(render(dot, "svg"))
    nodes = {
        node.get("id"): "".join(text.text or "" for text in node.iter(SVG + "text"))
        for node in root.iter(SVG + "g")
        if node.get("class") == "node"
    }
    assert [nodes[f"n{number}"].replace("\xa0", " ").strip() for number in range(len(odd))] == [t.strip() for t in odd]


@needs_dot
@pytest.mark.parametrize(
    "inches, expected", [(5, 368), (15, 930), (40, 1444)]
)  # plus a margin of 4 points on each side
def test_a_wide_drawing_is_shown_in_a_window_and_its_own_units_stay(inches: int, expected: int) -> None:
    source = f"digraph {{ node [shape=box fixedsize=true width={inches} height=2]; a }}"
    root = ElementTree.fromstring(render(source, "svg"))
    left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
    assert (left, top, width, height) == (0, 0, 72 * inches + 8, 152)
    shown = [float(root.attrib[name].rstrip("pt")) for name in ("width", "height")]
    assert shown[0] == pytest.approx(expected, abs=1) and shown[1] == pytest.approx(height * expected / width, abs=1)


def test_absent_graphviz_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install graphviz"):
        render("digraph {}", "svg")


def test_an_onnx_is_checked_without_the_package(tmp_path: Path) -> None:
    """It draws, and nothing else: an ``import graphviz`` of a module would keep check-onnx.py from starting."""
    script = [SUPPORT / "without.py", "graphviz", "script", ROOT / "scripts" / "check-onnx.py"]
    assert "usage: check-onnx.py" in run_python(tmp_path, *script, "--help").stdout


@needs_dot
def test_dot_errors_are_reported() -> None:
    with pytest.raises(UserError, match=r"dot failed: .*syntax error"):
        render("digraph {", "svg")
