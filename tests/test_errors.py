"""A package that is not installed ends a script with one line; a module that the bundle should have does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantization.errors import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_PACKAGES = (sys.executable, "-S")  # no site-packages: Python alone


@pytest.mark.parametrize(
    "script, words",
    [("check-onnx", ["x.onnx"]), ("bench-engine", ["x.onnx"]), ("predict", ["x.onnx", "images"])],
)
def test_nothing_is_installed(script: str, words: list[str]) -> None:
    program = [*WITHOUT_PACKAGES, str(ROOT / "scripts" / f"{script}.py"), *words]
    done = subprocess.run(program, capture_output=True, text=True, cwd=str(ROOT))
    assert (done.returncode, done.stdout) == (2, "")
    line = f"error: {sys.executable} lacks "
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr
    assert "requirements.txt" in done.stderr


@pytest.mark.parametrize("module", sorted(PACKAGES))
def test_the_package_is_named_as_pip_knows_it(module: str) -> None:
    done = run(f"import {module}")
    assert done.returncode == 2 and f"pip install {PACKAGES[module]}," in done.stderr


@pytest.mark.parametrize(
    "statement", ["import quantization.nothing", "import models", "import os.nothing", "import _nothing"]
)
def test_what_pip_cannot_mend_keeps_its_traceback(statement: str) -> None:
    done = run(statement)
    assert done.returncode == 1 and "Traceback" in done.stderr and "pip install" not in done.stderr


def run(statement: str) -> subprocess.CompletedProcess[str]:
    program = f"from quantization.errors import one_line_ending\nwith one_line_ending():\n    {statement}\n"
    return subprocess.run([*WITHOUT_PACKAGES, "-c", program], capture_output=True, text=True, cwd=str(ROOT))
