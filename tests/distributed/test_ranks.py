"""One, two and three processes: the same ranges bit for bit, the same training within rounding, one end for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantization.distributed import Ranks, in_order
from support.workflow import SUPPORT, run_task

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "qat-yolov7.py"


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """What happened in ``rank_tasks.py``: one process that forks those of all cases."""
    result: dict[str, Any] = run_task(SUPPORT, program=SUPPORT / "rank_tasks.py")
    return result


@pytest.mark.parametrize("method", ["sqnr", "entropy", "max"])
@pytest.mark.parametrize("processes", ["2", "3"])
class TestSameResult:
    def test_ranges_are_those_of_one_process(self, cases: dict[str, Any], processes: str, method: str) -> None:
        one, many = cases["results"]["1"][method], cases["results"][processes][method]
        assert len(one["amax"]) == 6 and one["amax"] == many["amax"]

    def test_training_is_that_of_one_process(self, cases: dict[str, Any], processes: str, method: str) -> None:
        one, many = cases["results"]["1"][method], cases["results"][processes][method]
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-6)
        for name, values in one["weights"].items():
            wanted, found = np.array(values), np.array(many["weights"][name])
            assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), name
            if name.endswith("weight"):
                before = np.array(one["before"][name])
                assert np.abs(wanted - before).max() > 1e-4 * np.abs(before).max()  # training has changed it


def test_ranks_but_the_first_print_nothing(cases: dict[str, Any]) -> None:
    for codes, errors in cases["ends"].values():
        assert set(codes) == {0} and errors[1:] == [""] * (len(errors) - 1)


class TestFailures:
    def test_all_end_with_the_code_of_the_one_that_fails(self, cases: dict[str, Any]) -> None:
        codes, errors = cases["failures"]["error"]
        assert codes == [2, 2, 2] and errors == ["error: process 1: image 7 is damaged\n", "", ""]

    def test_a_signal_to_one_stops_all(self, cases: dict[str, Any]) -> None:
        codes, errors = cases["failures"]["signal"]
        assert codes == [143, 143, 143] and errors == ["stopped by SIGTERM\n", "", ""]

    def test_a_killed_process_ends_the_others(self, cases: dict[str, Any]) -> None:
        codes, errors = cases["failures"]["killed"]
        assert codes == [1, -9, 1] and errors[0].startswith("error: another process has gone") and errors[2] == ""


class TestImagesThatGo:
    def test_all_know_what_each_could_not_read(self, cases: dict[str, Any]) -> None:
        found = cases["images"]
        expected = [str(Path(found["folder"], f"{number:02}.png")) for number in (0, 5, 10)]
        for text in found["failed"]:
            failed = json.loads(text)
            assert sorted(failed) == expected
            assert all(file in reason and "does not exist any more" in reason for file, reason in failed.items())
        first = found["log"][0].splitlines()[:3]
        assert sorted(line.split(": ")[0] for line in first) == ["QAT goes on without an image"] * 3
        assert all(any(file in line for line in first) for file in expected)

    def test_the_limit_is_that_of_all_together(self, cases: dict[str, Any]) -> None:
        codes, errors = cases["images"]["end"]
        assert codes == [2, 2, 2]
        lines = [[line for line in text.splitlines() if "WARN" not in line] for text in errors]  # but OpenCV's own
        assert lines[1:] == [[], []]
        (line,) = lines[0]
        assert line.startswith("error: 11 training images cannot be read any more, the first: ")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("command", ["export", "test", "sensitive"])
def test_torchrun_of_a_command_for_one_process_is_refused(command: str, rank: int) -> None:
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), command, "any.pt"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    expected = f"error: {command} is for one process: start it without torchrun\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "" if rank else expected)


class TestWithoutTorchrun:
    def test_everything_is_this_processs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("WORLD_SIZE", "4")  # some schedulers set it
        ranks = Ranks()
        assert not ranks.many and ranks.main
        assert ranks.exchange(3) == [3] and ranks.to_main(4) == [4] and ranks.main_only(lambda: 5) == 5
        assert list(ranks.rounds([[1, 2], [3]])) == [([1, 2], [2]), ([3], [1])]


def test_dealt_items_come_back_in_order() -> None:
    items = list(range(11))
    assert in_order([items[rank::3] for rank in range(3)]) == items
    assert in_order([]) == in_order([[], []]) == []
