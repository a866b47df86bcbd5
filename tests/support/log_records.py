"""Log records of the package alone: other packages log as they like, on the same root logger."""

from __future__ import annotations

import logging

import pytest


def package_records(caplog: pytest.LogCaptureFixture, above: int = logging.NOTSET) -> list[logging.LogRecord]:
    """Records of the package's loggers.

    Args:
        caplog: pytest's fixture.
        above: leave out those of this level and lower ones.
    """
    return [entry for entry in caplog.records if entry.name.split(".")[0] == "quantization" and entry.levelno > above]
