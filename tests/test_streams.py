"""A process ends its work, and with its own exit code, whoever stops reading its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import logging, pathlib, subprocess, sys
sys.path.insert(0, {root!r})
from quantization.errors import log_to_stdout, run_main

def main(arguments):
    log_to_stdout()
    print("gr\\u00fc\\u00dfe", flush=True)
    sys.stdin.readline()  # the readers have gone
    for number in range(3000):
        print("a line that nobody reads")
        logging.getLogger("quantization").info("nor this")
        print("nor this", file=sys.stderr)
    child = subprocess.run([sys.executable, "-c", "print('nor this')"]).returncode
    pathlib.Path({file!r}).write_text(f"done {{child}}")
    return 3

run_main(main)
"""


@pytest.mark.parametrize("goes", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_reader_that_goes_ends_nothing(tmp_path: Path, goes: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", PROGRAM.format(root=str(ROOT), file=str(file))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline().decode() == "grüße\n"
    for name in goes:
        getattr(process, name).close()
    left = "stderr" if goes == ("stdout",) else "stdout"
    process.stdin.write(b"\n")
    process.stdin.close()
    text = b"" if len(goes) == 2 else getattr(process, left).read()
    assert process.wait() == 3 and file.read_text() == "done 0"
    if len(goes) == 1:  # what the other reader gets is whole
        assert text.count(b"\n") == (3000 if left == "stderr" else 6001) and b"Traceback" not in text


def test_files_and_streams_of_others_are_left_alone(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from quantization.streams import outlive_readers; "
    code += "own = sys.stdout; outlive_readers(); assert sys.stdout is own; print('there')"
    with open(tmp_path / "out", "w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "out").read_text() == "there\n"
