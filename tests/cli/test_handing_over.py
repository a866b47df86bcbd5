"""Where ``--triton`` may write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from quantization.cli.handing_over import check_hand_over
from quantization.cli.options import ExportCommand
from quantization.errors import UserError


def test_a_folder_that_torch_would_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder "triton" in the checkout is a package without modules to Python, and torch's import fails on it."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)
    model: Any = None  # --triton does not look at it
    with pytest.raises(UserError, match="torch imports a package of that name"):
        check_hand_over(model, ExportCommand("w.pt", triton="triton"))
    for allowed in ("repository", "served/triton"):
        check_hand_over(model, ExportCommand("w.pt", triton=allowed))
    assert not list(tmp_path.iterdir())
