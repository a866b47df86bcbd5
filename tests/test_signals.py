"""Signals and errors end a script with one line and the exit code that shells expect."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantization.errors import ALL_PACKAGES

SUPPORT = Path(__file__).resolve().parent / "support"
ROOT = SUPPORT.parents[1]


def heed_all() -> None:
    """Undo what the tests' own parent ignores: shells let background jobs ignore SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    "case, code, output, error",
    [
        ("term", 143, "", "stopped by SIGTERM; go on with: this\n"),
        ("int", 130, "", "stopped by SIGINT; go on with: this\n"),
        ("hup", 129, "", "stopped by SIGHUP; go on with: this\n"),
        ("deferred", 143, "safe point\n", "stopped by SIGTERM\n"),
        ("no check", 143, "safe point\n", "stopped by SIGTERM\n"),
        ("twice", 130, "", ""),
        ("swallowed", 143, "safe point\n", "stopped by SIGTERM\n"),
        ("dropped", 143, "safe point\n", "stopped by SIGTERM\n"),
        ("error", 2, "", "error: give another\n"),
        ("not written", 1, "", "error: done, but\n"),
        ("missing", 2, "", f"error: Pillow is not installed: pip install Pillow; {ALL_PACKAGES}\n"),
    ],
)
def test_exit_code_and_line(case: str, code: int, output: str, error: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "signalled.py"), case], capture_output=True, text=True, preexec_fn=heed_all
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, output, error)


def test_a_missing_module_of_a_checkout_is_no_missing_package() -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "signalled.py"), "missing own"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr[:9]) == (1, "Traceback")


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    """``nohup`` and background jobs of scripts rely on it."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "signalled.py"), "hup"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "script, module, number, code",
    [
        ("qat-yolov5", "torch", signal.SIGTERM, 143),
        ("qat-yolov5", "torch", signal.SIGINT, 130),
        ("check-onnx", "onnx", signal.SIGINT, 130),
        ("eval-engine", "numpy", signal.SIGTERM, 143),
        ("bench-engine", "numpy", signal.SIGTERM, 143),
        ("draw-engine", "html", signal.SIGINT, 130),
    ],
)
def test_while_modules_are_imported(tmp_path: Path, script: str, module: str, number: int, code: int) -> None:
    """A module whose import never ends stands for one that takes long."""
    (tmp_path / f"{module}.py").write_text("import sys, time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    for marker in ("models/yolo.py", "utils/dataloaders.py", "val.py"):
        (tmp_path / marker).parent.mkdir(exist_ok=True)
        (tmp_path / marker).write_text("")
    for name in ("quantization", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "scripts" / f"{script}.py"), "export", "x.pt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_all,
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, error = process.communicate()
    assert (process.returncode, error) == (code, f"stopped by {signal.Signals(number).name}\n")
