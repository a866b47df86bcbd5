"""Hostile files and faults while a run goes: one line, exit code 2, and nothing that is finished is lost."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from shapes import draw_dataset
from support.workflow import TASKS, run_python, run_task

CASES = TASKS.with_name("fault_cases.py")
COMMANDS = {
    "quantize": "quantize evil.pt --cocodir {data}",
    "export": "export evil.pt --size 64",
    "sensitive": "sensitive evil.pt --cocodir {data}",
    "test": "test evil.pt --cocodir {data}",
}


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "shapes"
    draw_dataset(folder, train=24, val=8, size=96, classes=3, objects=3, difficulty=0.1)
    return folder


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_exploit_does_not_run(checkouts: Callable[[str], Path], data: Path, command: str) -> None:
    checkout = checkouts("yolov5")
    torch.save({"model": Call(os.system, "touch ran")}, str(checkout / "evil.pt"))
    arguments = COMMANDS[command].format(data=data).split()
    done = run_python(checkout, "scripts/qat-yolov5.py", *arguments, code=2)
    assert not (checkout / "ran").exists()
    (line,) = [line for line in done.stderr.splitlines() if "Warning" not in line and line.strip()]
    assert line.startswith(f"error: evil.pt holds {os.system.__module__}.system, which no checkpoint needs")


def test_upstreams_own_model_is_not_called(checkouts: Callable[[str], Path]) -> None:
    """It is an allowed layer, but its ``__init__`` evaluates strings."""
    checkout = checkouts("yolov5")
    network = {"nc": 1, "anchors": [[1, 2]], "depth_multiple": 1, "width_multiple": 1, "head": []}
    network["backbone"] = [[-1, 1, "__import__('os').system('touch evaluated')", []]]
    argument = pickle.dumps(network, 2)[2:-1]  # without its start and end
    with zipfile.ZipFile(checkout / "evil.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02cmodels.yolo\nModel\n" + argument + b"\x85R.")
    done = run_python(checkout, "scripts/qat-yolov5.py", "export", "evil.pt", "--size", 64, code=2)
    assert "error: evil.pt calls models.yolo.Model with arguments" in done.stderr
    assert not (checkout / "evaluated").exists()


@pytest.fixture(scope="module")
def cases(checkouts: Callable[[str], Path], data: Path) -> dict[str, Any]:
    """What happened in ``fault_cases.py``: one process for all cases."""
    (data / "labels" / "val2017.cache").write_bytes(pickle.dumps(Call(os.system, f"touch {data}/ran")))
    (data / "labels" / "train2017.cache").write_bytes(pickle.dumps(Call(os.system, f"touch {data}/ran")))
    result: dict[str, Any] = run_task(checkouts("yolov5"), data, program=CASES)
    return result


def last_line(log: str) -> str:
    return log.strip().splitlines()[-1]


def test_a_label_cache_is_never_read(cases: dict[str, Any], data: Path) -> None:
    assert cases["plain"][0] == 0, cases["plain"][1]
    assert not (data / "ran").exists()


def test_the_guard_of_torch_load_stays(cases: dict[str, Any]) -> None:
    """Upstream's own scripts alone run without it."""
    assert cases["load is torch's"]


def test_an_image_that_goes_in_qat_is_replaced_and_listed(cases: dict[str, Any]) -> None:
    code, log = cases["vanished"]
    assert code == 0, log
    assert log.count("QAT goes on without an image") == 2 and "does not exist any more" in log
    assert cases["vanished images"] == cases["gone"]


def test_too_many_images_that_go_end_qat(cases: dict[str, Any]) -> None:
    code, log = cases["all vanished"]
    assert code == 2 and "Traceback" not in log
    assert "error: 11 training images cannot be read any more, the first: " in last_line(log)
    assert "--resume" in last_line(log) and cases["all vanished files"] == ["ptq.pt", "summary.json"]


@pytest.mark.parametrize("stage", ["calibration", "evaluation"])
def test_an_image_that_goes_elsewhere_is_named(cases: dict[str, Any], stage: str) -> None:
    code, log = cases[f"vanished in {stage}"]
    assert code == 2 and "Traceback" not in log
    assert cases["named"][stage] in last_line(log) and "does not exist any more" in last_line(log)


def test_memory_that_runs_out(cases: dict[str, Any]) -> None:
    code, log = cases["memory in QAT"]
    assert code == 2 and "Traceback" not in log
    line = last_line(log)
    assert line.startswith(
        "error: QAT ran out of memory with --batch-size 4 (CUDA out of memory. Tried to allocate 2 GiB"
    )
    for word in ("--batch-size", "--imgsz", "--amp", "ptq.pt stays"):
        assert word in line
    assert "ptq.pt" in cases["memory in QAT files"]
    code, log = cases["memory in calibration"]
    assert code == 2 and last_line(log).startswith("error: calibration ran out of memory with --batch-size 4")


def test_a_damaged_record_is_named(cases: dict[str, Any]) -> None:
    for kind in ("list", "str", "int"):
        assert cases["records"][kind].startswith(f"record.pt: its entry quant_tools is damaged (a {kind}")
    assert cases["records"]["groups"].startswith("record.pt: the entry groups of its record is damaged")
