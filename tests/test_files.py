"""Output files: complete or absent, leftovers of dead processes swept, and only those."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from quantization import files
from quantization.errors import UserError
from quantization.files import STALE, atomic_write, check_named_files, check_writable, sweep, write_json
from quantization.processes import host_name


def leave(folder: Path, name: str, number: int, host: str | None = None) -> Path:
    """A file as ``atomic_write`` of a process leaves it when it is killed."""
    path = Path(name)
    file = folder / f".{path.stem}-quant-tools-{host or host_name()}-{number}-abcd_123{path.suffix}"
    file.write_text("half")
    return file


def dead_process() -> int:
    """The id of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


class TestCheckNamedFiles:
    def test_what_can_be_written_leaves_nothing(self, tmp_path: Path) -> None:
        check_named_files(
            ["in.pt", None], [("--a", str(tmp_path / "new" / "a")), ("--b", None), ("--c", str(tmp_path / "c"))]
        )
        assert list(tmp_path.iterdir()) == []
        check_named_files([], [("--a", str(tmp_path / "new" / "a"))], make_folders=True)
        assert (tmp_path / "new").is_dir()

    @pytest.mark.parametrize(
        "outputs, message",
        [
            ([("--a", "in.pt")], "--a: in.pt would be overwritten"),
            ([("--a", "x"), ("--b", "./x")], "--b: ./x would be overwritten"),
            ([("--a", "folder")], "--a folder is a folder"),
            ([("--a", "in.pt/x")], "--a in.pt/x cannot be written"),
        ],
    )
    def test_refusals(
        self, outputs: list[tuple[str, str]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("in.pt").write_text("weights")
        Path("folder").mkdir()
        with pytest.raises(UserError, match=message):
            check_named_files(["in.pt"], outputs)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "in.pt"]


class TestAtomicWrite:
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        write_json(str(file), {"a": 1})
        with pytest.raises(TypeError):
            write_json(str(file), {"a": object()})
        assert file.read_text() == '{\n  "a": 1\n}' and list(tmp_path.iterdir()) == [file]
        umask = os.umask(0)
        os.umask(umask)
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask

    @pytest.mark.parametrize("place", ["write", "replace"])
    def test_a_full_disk_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if place == "replace":
            monkeypatch.setattr(files.os, "replace", full)
        with pytest.raises(UserError, match=r"a\.pt cannot be written \(No space left on device\): make room"):
            with atomic_write(tmp_path / "a.pt"):
                if place == "write":
                    full()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_vanishes_meanwhile_is_one_line(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        with pytest.raises(UserError, match="cannot be written"):
            with atomic_write(folder / "a.pt") as temporary:
                os.unlink(temporary)
                folder.rmdir()
        write_json(str(folder / "a.json"), 1)  # the next write makes it again
        assert (folder / "a.json").read_text() == "1"


class TestSweep:
    def test_takes_what_dead_processes_left(self, tmp_path: Path) -> None:
        stale = leave(tmp_path, "ptq.pt", dead_process())
        own = leave(tmp_path, "ptq.pt", os.getpid())  # a container gives every first process the same number
        assert sweep(tmp_path / "ptq.pt") == sorted(map(str, (stale, own))) or not (stale.exists() or own.exists())
        assert list(tmp_path.iterdir()) == []

    def test_leaves_what_others_may_need(self, tmp_path: Path) -> None:
        dead = dead_process()
        kept = [
            leave(tmp_path, "ptq.pt", os.getppid()),  # it runs
            leave(tmp_path, "ptq.pt", dead, host="elsewhere"),  # who knows
            leave(tmp_path, "qat.pt", dead),  # another file's
            tmp_path / ".ptq-abcd1234.pt",  # not ours by its name
            tmp_path / "ptq.pt",
        ]
        for file in kept[-2:]:
            file.write_text("")
        assert sweep(tmp_path / "ptq.pt") == [] and set(tmp_path.iterdir()) == set(kept)

    def test_takes_what_is_older_than_a_day(self, tmp_path: Path) -> None:
        old = leave(tmp_path, "ptq.pt", dead_process(), host="elsewhere")
        os.utime(old, (time.time() - STALE - 60,) * 2)
        assert sweep(tmp_path / "ptq.pt") == [str(old)]


class TestCheckWritable:
    def test_leaves_no_folder_where_none_is_to_be_made(self, tmp_path: Path) -> None:
        check_writable(tmp_path / "a" / "b" / "c.pt", "--ptq", make_folder=False)
        assert list(tmp_path.iterdir()) == []
        check_writable(tmp_path / "a" / "b" / "c.pt", "--ptq")
        assert list((tmp_path / "a" / "b").iterdir()) == []

    def test_refuses_a_file_in_the_folders_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=r"--ptq .*cannot be written"):
            check_writable(tmp_path / "file" / "a" / "b.pt", "--ptq")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
