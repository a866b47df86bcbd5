"""A run that is killed and resumed ends as one that was not, bit for bit; two runs never write the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from shapes import draw_dataset
from support.workflow import TASKS, run_task

CASES = TASKS.with_name("resume_cases.py")


@pytest.fixture(scope="module")
def cases(checkouts: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened in ``resume_cases.py``: one process for all cases, since most of a small run is its imports."""
    data = tmp_path_factory.mktemp("resume") / "shapes"
    draw_dataset(data, train=24, val=8, size=96, classes=3, objects=3, difficulty=0.1)
    result: dict[str, Any] = run_task(checkouts("yolov5"), data, program=CASES)
    return result


class TestKilled:
    def test_exit_codes_and_the_line_that_says_how_to_resume(self, cases: dict[str, Any]) -> None:
        killed = cases["killed"]
        assert killed["codes"] == [-9, 143, -9, 130]
        for name, line in (("SIGTERM", killed["last lines"][1]), ("SIGINT", killed["last lines"][3])):
            assert line.startswith(f"stopped by {name}; go on with: python scripts/qat-yolov5.py quantize ")
            assert "--resume --summary" in line

    def test_ends_as_the_uninterrupted_run(self, cases: dict[str, Any]) -> None:
        ptq, first, second = cases["epochs"]
        assert ptq["epoch"] == 0 and first["against_ptq"]["points"] != 0
        assert first["loss"] != second["loss"] and first["map50"] != second["map50"]  # equal figures mean something
        assert cases["killed"]["done"][0] == 0
        assert "goes on: QAT, 1 of 2 epochs and 3 of 4 steps" in cases["killed"]["done"][1]
        assert cases["killed"]["differences"] == [] and cases["killed"]["left"] == []
        assert cases["killed"]["redone"] <= 4  # steps of one epoch

    def test_neither_a_new_run_nor_other_options_take_its_place(self, cases: dict[str, Any]) -> None:
        (code, log), (other_code, other_log) = cases["killed"]["refused"]
        assert code == other_code == 2
        assert "holds the unfinished run" in log and "--resume, or discard it with --restart" in log
        assert "was started with lr 0.0001, not 0.5" in other_log

    def test_a_finished_run_says_so(self, cases: dict[str, Any]) -> None:
        code, log = cases["killed"]["again"]
        assert code == 0 and "is finished" in log and "ptq.pt" in log and "qat.pt" in log and "QAT 1/" not in log


class TestTwoRuns:
    def test_the_second_is_refused_with_the_firsts_process_id(self, cases: dict[str, Any]) -> None:
        code, log = cases["two"]["second"]
        assert code == 2 and f"is being written by process {cases['two']['first']}:" in log

    def test_a_checkpoint_of_another_run_is_refused(self, cases: dict[str, Any]) -> None:
        code, log = cases["two"]["foreign"]
        assert code == 2 and "ptq.pt of run" in log and "another run's" in log


class TestFaults:
    def test_a_summary_that_cannot_be_written_costs_no_work(self, cases: dict[str, Any]) -> None:
        code, log = cases["faults"]["summary"]
        assert code == 1 and "Traceback" not in log
        assert log.count("it is tried again, the run goes on") == 1
        assert "error: the run is done, but" in log and "No space left on device" in log
        assert cases["faults"]["kept"] == ["summary.state.pt"]
        code, log = cases["faults"]["mended"]
        assert code == 0 and "QAT 1/1:" not in log and cases["faults"]["stage"] == "finished"

    def test_a_ptq_checkpoint_that_cannot_be_written_ends_the_run(self, cases: dict[str, Any]) -> None:
        code, log = cases["faults"]["ptq"]
        assert code == 2 and "ptq.pt cannot be written (No space left on device): make room" in log.splitlines()[-1]
        assert cases["faults"]["ptq left"] == []  # no state, no lock, no temporary file

    def test_a_folder_that_is_deleted_at_the_end_costs_no_result(self, cases: dict[str, Any]) -> None:
        code, log = cases["faults"]["gone"]
        assert code == 1 and "Traceback" not in log and "ptq.pt is gone" in log.splitlines()[-1]
        code, log = cases["faults"]["back"]
        assert code == 0 and "QAT 1/1:" not in log and cases["faults"]["back differs"] == []

    def test_a_qat_checkpoint_is_tried_again(self, cases: dict[str, Any]) -> None:
        code, log = cases["faults"]["qat"]
        assert code == 0 and "qat.pt cannot be written" in log and cases["faults"]["qat left"] == []
