"""Upstream's own scripts through ``python -m quantization.upstream``, with nothing to fetch from and no pip to call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
import yaml

from quantization.errors import UserError
from quantization.upstream import offline
from quantization.upstream.__main__ import main as run_main
from support.workflow import TASKS, run_python

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "checkpoints"
SCRIPTS = {"yolov5": "val.py", "yolov7": "test.py"}
COMMANDS = ("pip", "pip3", "curl", "wget", "git")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn images, named by a yaml with ``path:`` and neither ``nc:`` nor absolute paths."""
    from shapes import draw_dataset

    folder = tmp_path_factory.mktemp("few")
    draw_dataset(folder / "shapes", train=2, val=4, size=64, classes=3, objects=2, difficulty=0.1)
    content = yaml.safe_load((folder / "shapes" / "data.yaml").read_text())
    content.pop("nc", None)
    content.update(path=str(folder / "shapes"), train="train2017.txt", val="val2017.txt")
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder


def run_upstream(checkout: Path, few: Path, *arguments: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the checkout's evaluation script with commands that record their calls, and no fonts or settings at home."""
    commands, home, calls = few / "commands", few / "home", few / "calls"
    home.mkdir(exist_ok=True)
    commands.mkdir(exist_ok=True)
    calls.write_text("")
    for name in COMMANDS:
        (commands / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\n')
        (commands / name).chmod(0o755)
    for cache in (few / "shapes").rglob("*.cache"):
        cache.unlink()  # the two upstreams cannot read each other's
    font = checkout / "Arial.ttf"
    font.unlink(missing_ok=True)  # what a user's checkout lacks too
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(home)}
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "YOLOv5_AUTOINSTALL"):
        environment.pop(proxy, None)
    script = SCRIPTS[checkout.name]
    command = [sys.executable, "-m", "quantization.upstream", script, "--device", "cpu", "--batch-size", "2"]
    done = subprocess.run(
        [*command, "--img-size", "64", *map(str, arguments)],
        cwd=str(checkout),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done, calls


def test_without_a_script_there_is_nothing_to_run() -> None:
    with pytest.raises(UserError, match="name a script"):
        run_main([])


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_evaluates_without_fetching(name: str, checkouts: Callable[[str], Path], few: Path) -> None:
    more = ["--no-trace"] if name == "yolov7" else []
    done, calls = run_upstream(
        checkouts(name), few, "--weights", FIXTURES / f"{name}-0.1.pt", "--data", few / "data.yaml", *more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Results saved to" in done.stdout + done.stderr
    assert not [line for line in calls.read_text().splitlines() if " describe " not in line]
    assert not list((few / "home").rglob("*.ttf"))
    assert not list(checkouts(name).rglob("*.ttf"))
    assert "ownloading" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(SCRIPTS))
@pytest.mark.parametrize(
    "weights, data, message",
    [
        ("yolov9q.pt", "data.yaml", "weight file yolov9q.pt does not exist"),
        ("yolov7.pt", "data.yaml", "weight file yolov7.pt does not exist"),
        (None, "absent.yaml", "fetches no data"),
    ],
)
def test_what_is_not_there_is_one_line(
    name: str, weights: str | None, data: str, message: str, checkouts: Callable[[str], Path], few: Path
) -> None:
    content = yaml.safe_load((few / "data.yaml").read_text())
    content.update(val="images/nowhere", download="https://example.com/data.zip")
    (few / "absent.yaml").write_text(yaml.safe_dump(content))
    done, calls = run_upstream(
        checkouts(name), few, "--weights", weights or FIXTURES / f"{name}-0.1.pt", "--data", few / data
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert "Traceback" not in done.stderr
    assert not [line for line in calls.read_text().splitlines() if " describe " not in line]


def test_yolov7_finds_what_lies_below_path_beside_the_yaml(tmp_path: Path) -> None:
    """As the bundle's own commands; from elsewhere, with names alone, and lists."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "more.txt").touch()
    check = offline._local_data(lambda data: data, tmp_path / "data.yaml")
    seen = check({"path": "set", "train": ["images", "more.txt"], "val": "images", "test": "gone", "names": ["a", "b"]})
    assert seen["train"] == [str(tmp_path / "set" / name) for name in ("images", "more.txt")]
    assert seen["val"] == str(tmp_path / "set" / "images")
    assert (seen["test"], seen["nc"]) == ("gone", 2)


def test_refusals(checkouts: Callable[[str], Path]) -> None:
    done = run_python(checkouts("yolov5"), TASKS.with_name("upstream_tasks.py"), "refusals")
    assert done.stdout.strip().splitlines()[-1] == '["connect", "look up", "pip", "curl", "git fetch"]'


def test_the_reason_of_an_error_is_found_in_its_chain() -> None:
    reason = offline.Refused("reason")
    try:
        try:
            raise reason
        except OSError:
            raise ValueError("follow-up")
    except ValueError as error:
        assert offline.network_refusal(error) is reason
    assert offline.network_refusal(ValueError("alone")) is None
