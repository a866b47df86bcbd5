"""The README's own commands, in order, as a reader types them: in new checkouts, with a smaller model, data and size."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from checkouts import make_checkout
from shapes import draw_dataset
from support.documents import code_blocks, parse, typed_lines
from support.workflow import CLASSES, ROOT, run_python

READMES = ("README.md", "README.zh-CN.md")
NUMBER = re.compile(r"[+-]?\d+\.\d+")


class Run(NamedTuple):
    """How a line of the README is run.

    Attributes:
        line: how it begins.
        checkout: the upstream in whose checkout it runs.
        replaced: words of it, and what stands for them; {names} are those of ``places``.
        added: options that make it small, or that a machine without GPU needs.
    """

    line: str
    checkout: str
    replaced: dict[str, str]
    added: str = ""


SMALL = "--device cpu --workers 0 --batch-size 4"
RUN = (
    Run("cp -r quantization scripts", "yolov5", {"/path/to/yolov5": "{yolov5}"}),
    Run(
        "python scripts/qat-yolov5.py deploy",
        "yolov5",
        {"yolov5n.pt": "{trained}", "data.yaml": "{data}/data.yaml", "320": "96"},
        SMALL,
    ),
    Run(
        "python scripts/qat-yolov7.py quantize",
        "yolov7",
        {"yolov7.pt": "{random}", "/data/coco": "{data}"},
        f"{SMALL} --imgsz 64 --calib-batches 1 --epochs 1 --iters 2 --confidence 0.05",
    ),
    Run("python scripts/qat-yolov7.py export", "yolov7", {"640": "64"}),
    Run("python scripts/draw-engine.py", "yolov7", {}),
    Run(
        "python -m quantization.upstream val.py",
        "yolov5",
        {"qat.pt": "runs/int8/ptq.pt", "data.yaml": "{data}/data.yaml"},
        f"{SMALL} --imgsz 96",
    ),
    Run(
        "python scripts/quantize-onnx.py",
        "yolov5",
        {"yolov8s.onnx": "runs/int8/float.onnx", "data.yaml": "{data}/data.yaml"},
    ),
)
# they need TensorRT: this package's own parsers read them
PARSED = ("python scripts/bench-engine.py", "python scripts/eval-engine.py")
# they install packages or run for minutes: looked up in requirements.txt and in the Makefile
LOOKED_UP = ("pip install ", "make ")
# what the target would have written, out of benchmarks/results/engines
COPIED = {"qat-layer.json": "yolov7-tiny/rule-layer.json", "qat-profile.json": "yolov7-tiny/rule-profile.json"}


@pytest.fixture(scope="module")
def places(trained_yolov5: Path, random_yolov7_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights, a few images, and a checkout of each upstream without the bundle."""
    folder = tmp_path_factory.mktemp("readme")
    draw_dataset(folder / "shapes", train=8, val=8, size=128, classes=CLASSES, objects=3, difficulty=0.1)
    return {
        "trained": trained_yolov5,
        "random": random_yolov7_tiny,
        "data": folder / "shapes",
        **{name: make_checkout(name, folder / name) for name in ("yolov5", "yolov7")},
    }


@pytest.fixture(scope="module")
def done(places: dict[str, Path]) -> dict[str, str]:
    """What each line of ``RUN`` printed, in the README's order."""
    lines = typed_lines("README.md")
    return {run.line: outcome(run, only(lines, run.line), places) for run in RUN}


def only(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def outcome(run: Run, line: str, places: dict[str, Path]) -> str:
    words = shlex.split(line)
    assert set(run.replaced) <= set(words), "replaces what is not there"
    if words[0] == "python":
        words = [run.replaced.get(word, word).format(**places) for word in words[1:]]
        printed = run_python(places[run.checkout], *words, *run.added.split())
        return printed.stdout + printed.stderr
    for old, new in run.replaced.items():
        line = line.replace(old, new.format(**places))
    subprocess.run(f"{line} && test . -ef {places[run.checkout]}", shell=True, check=True, cwd=str(ROOT))
    for name in ("quantization", "scripts"):  # of the other upstream, with the same line
        shutil.copytree(places["yolov5"] / name, places["yolov7"] / name, dirs_exist_ok=True)
    for name, result in COPIED.items():
        shutil.copy(str(ROOT / "benchmarks/results/engines" / result), str(places["yolov7"] / name))
    return ""


def test_both_languages_tell_to_type_the_same() -> None:
    english, chinese = ([block for block in code_blocks(name) if "--+" not in block[0]] for name in READMES)
    assert english == chinese and len(english) > 2  # all blocks but the drawing, which has words in it
    assert typed_lines(READMES[0]) == typed_lines(READMES[1])


def test_each_line_is_run_or_parsed() -> None:
    starts = (*(run.line for run in RUN), *PARSED, *LOOKED_UP)
    missed = [line for line in typed_lines("README.md") if not line.startswith(starts)]
    assert not missed, "add it to RUN or to PARSED"


def test_what_needs_tensorrt_parses() -> None:
    for start in PARSED:
        _, script, *words = shlex.split(only(typed_lines("README.md"), start))
        parse(Path(script).stem, words)


def test_packages_and_targets_exist() -> None:
    requirements = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in typed_lines("README.md"):
        if line.startswith(LOOKED_UP):
            command, *names = [word for word in line.split() if word != "install"]
            assert set(names) <= set(requirements if command == "pip" else targets), line


def test_deploy_prints_what_the_readme_shows(done: dict[str, str]) -> None:
    """Its lines but for the figures, and the verdict that follows from them."""
    printed = [masked(line) for line in done["python scripts/qat-yolov5.py deploy"].splitlines()]
    (shown,) = [block for block in code_blocks("README.md") if any("to ship" in line for line in block)]
    for line in shown:
        assert masked(line) in printed or line.startswith("Ship ")
    assert [line for line in printed if line.startswith("Ship runs/int8/ptq.pt: PTQ, ")]


def masked(line: str) -> str:
    return " ".join(NUMBER.sub("N", line).split())


def test_what_the_lines_write(done: dict[str, str], places: dict[str, Path]) -> None:
    assert len(done) == len(RUN)
    yolov5 = ["runs/int8/ptq.pt", "runs/int8/model.onnx", "runs/int8/report.html", "yolov8s-int8.onnx"]
    for name, files in {"yolov5": yolov5, "yolov7": ["ptq.pt", "qat.pt", "qat.onnx"]}.items():
        assert [file for file in files if not (places[name] / file).is_file()] == []
    assert "mAP50-95" in done["python -m quantization.upstream val.py"]
