"""Tables as a terminal shows them."""

from __future__ import annotations

from quantization.tables import Row, Table, shown_width, table_text


def test_columns_line_up_whatever_the_script_of_the_labels() -> None:
    """An ideograph and its full-width brackets take two columns: the Latin label is of the same width as the Chinese."""
    chinese = "\u8349\u5730\u8d2a\u591c\u86fe\uff08\u6210\u866b\uff09"  # nine characters
    rows = [Row(chinese, ["0.5"]), Row("x" * 18, ["0.25"]), Row("e\u0301", ["1"])]
    assert table_text(Table(["AP"], rows)).splitlines() == [
        " " * 18 + "    AP",
        chinese + "   0.5",
        "x" * 18 + "  0.25",
        "e\u0301" + " " * 17 + "     1",
    ]
    assert shown_width(chinese) == 18
