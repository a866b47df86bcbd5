"""Locks on outputs: held by one process, given up by a dead one, gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantization import locks
from quantization.errors import UserError
from quantization.locks import OutputLocks

HOLDER = Path(__file__).resolve().parent / "support" / "lock_holder.py"


def hold(file: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of a file."""
    process = subprocess.Popen(
        [sys.executable, str(HOLDER), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    file = tmp_path / "new" / "ptq.pt"
    first = hold(file)
    with pytest.raises(UserError, match=rf"ptq\.pt is being written by process {first.pid}:"):
        with OutputLocks([str(tmp_path / "qat.pt"), str(file)]):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]  # the lock of qat.pt was given back
    first.communicate("")
    assert list(tmp_path.iterdir()) == []  # with the folder that was made for the lock alone
    with OutputLocks([str(file)]):
        assert (file.parent / ".ptq.pt.lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flock", [True, False], ids=["flock", "without flock"])
def test_a_dead_process_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool) -> None:
    first = hold(tmp_path / "a.pt")
    if not flock:
        monkeypatch.setattr(locks, "fcntl", None)
        with pytest.raises(UserError, match=f"process {first.pid}"), OutputLocks([str(tmp_path / "a.pt")]):
            pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / ".a.pt.lock").read_text() == str(first.pid)
    with OutputLocks([str(tmp_path / "a.pt")]):
        assert (tmp_path / ".a.pt.lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_exist_stay_with_their_folder(tmp_path: Path) -> None:
    file = tmp_path / "out" / "a.pt"
    with OutputLocks([str(file)]):
        file.write_text("done")
    assert file.read_text() == "done" and list(file.parent.iterdir()) == [file]
