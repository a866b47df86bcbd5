"""How commands end: tables aligned, lines that a shell reads back, and what ``--quiet`` leaves."""

from __future__ import annotations

import logging
import shlex

import pytest

from quantization.closing import Closing, closing_text, command_line, tell
from quantization.errors import log_to_stdout
from quantization.tables import Row, Table, table_html


def test_a_closing_says_found_written_and_next() -> None:
    table = Table(("mAP",), [Row("float", ["0.5"]), Row("PTQ", ["0.25"])])
    closing = Closing(table, "Ship it", {"a.pt": "PTQ", "longer.json": "figures"}, ["python x"])
    assert closing_text(closing).split("\n") == [
        "",
        "        mAP",
        "float   0.5",
        "PTQ    0.25",
        "Ship it",
        "",
        "Wrote",
        "  a.pt         PTQ",
        "  longer.json  figures",
        "",
        "Next",
        "  python x",
    ]
    assert closing_text(Closing()) == ""


def test_a_command_line_is_what_a_shell_reads() -> None:
    words = ["a b.pt", "it's", "$HOME", "--size", 640]
    line = command_line("qat-yolov5.py", *words)
    assert shlex.split(line) == ["python", "scripts/qat-yolov5.py", *map(str, words)]


def test_quiet_leaves_warnings_and_the_end(package_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    package_logger.handlers[:] = []  # where another test has called log_to_stdout, pytest has added some since
    log_to_stdout(quiet=True)
    package_logger.info("a step")
    package_logger.warning("a warning")
    tell(Closing(verdict="the end"))
    assert capsys.readouterr().out == "a warning\n\nthe end\n"


def test_a_table_for_a_page_is_escaped() -> None:
    html = table_html(Table(("<b>",), [Row("<script>", ["&"]), Row("heading"), Row("x", ["1"], indent=True)]))
    assert "<script>" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html and "<td class=number>&amp;</td>" in html and "colspan=2" in html


def test_files_line_up_where_names_are_chinese() -> None:
    written = {"\u6743\u91cd.pt": "PTQ", "ptq.onnx": "Q/DQ"}  # two ideographs, four columns
    assert closing_text(Closing(written=written)).split("\n")[2:] == ["  \u6743\u91cd.pt   PTQ", "  ptq.onnx  Q/DQ"]
