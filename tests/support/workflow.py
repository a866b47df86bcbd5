"""Python run in a checkout as a user would, and the sizes of the small data set that the workflow tests share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
TASKS = SUPPORT / "checkout_tasks.py"
IMAGE_SIZE = 128
CLASSES = 3


def run_python(folder: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in ``folder``, as a user would, and check the exit code."""
    environment = {**os.environ, "YOLOv5_AUTOINSTALL": "false"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=str(folder),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run_script(checkout: Path, upstream: str, line: str, *more: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the bundle in a checkout; ``line`` begins with it, and ``more`` may hold spaces."""
    return run_python(checkout, f"scripts/qat-{upstream}.py", *line.split(), *more)


def run_task(checkout: Path, *arguments: object, program: Path = TASKS) -> Any:
    """The result of a task of ``checkout_tasks.py``, or of another program of tasks, run in a checkout."""
    return json.loads(run_python(checkout, program, *arguments).stdout.strip().splitlines()[-1])


def load_script(name: str) -> ModuleType:
    """A script of the bundle as a module of this process, e.g. "eval-engine"."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
