"""Progress bars on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from quantization.progress_bar import DISABLE, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_only_a_terminal_gets_a_bar(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv(DISABLE, raising=False)
    assert list(progress_bar(range(3), title="Check", unit="image")) == [0, 1, 2]
    with progress_bar(title="QAT 1/2", unit="step", total=8, done=5) as bar:
        bar.update(3)
        assert bar.n == 8 or not stream.isatty()
    text = stream.getvalue()
    if stream.isatty():
        assert "Check:   0%" in text and "0/3" in text and "5/8" in text
        assert text.endswith("\r")  # both are erased
    else:
        assert text == ""


@pytest.mark.parametrize("value, shown", [("1", False), ("0", True), ("", True)])
def test_quiet_has_no_bars(value: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv(DISABLE, value)
    assert list(progress_bar(range(3), title="Check", unit="image")) == [0, 1, 2]
    assert bool(stream.getvalue()) == shown
