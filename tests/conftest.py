"""Checkouts, data and a trained model that the workflow tests share.

Made once a test process: `make test` sends a class or a module to one process as a whole (--dist loadscope).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Callable, Iterator

import pytest

from checkouts import HYP, install_bundle, make_checkout
from shapes import draw_dataset
from support.workflow import CLASSES, IMAGE_SIZE, TASKS, run_python


@pytest.fixture(autouse=True)
def package_logger() -> Iterator[logging.Logger]:
    """The package's logger, which a script in the test's process lets print; each test finds it as it was."""
    logger = logging.getLogger("quantization")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1:]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn shapes, few classes: 400 training and 40 validation images."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    draw_dataset(folder, train=400, val=40, size=160, classes=CLASSES, objects=3, difficulty=0.1)
    return folder


@pytest.fixture(scope="session")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``checkouts("yolov5")``: a checkout with the bundle copied into it."""
    made: dict[str, Path] = {}

    def get(upstream: str) -> Path:
        if upstream not in made:
            made[upstream] = make_checkout(upstream, tmp_path_factory.mktemp("checkout") / upstream)
            install_bundle(made[upstream])
        return made[upstream]

    return get


@pytest.fixture(scope="session")
def trained_yolov5(checkouts: Callable[[str], Path], shapes: Path) -> Path:
    """yolov5n, trained by upstream's own train.py until it finds most shapes."""
    checkout = checkouts("yolov5")
    run_python(
        checkout,
        "-m",
        "quantization.upstream",
        "train.py",
        "--data",
        shapes / "data.yaml",
        "--cfg",
        "models/yolov5n.yaml",
        "--weights",
        "",
        "--hyp",
        HYP,
        "--img",
        IMAGE_SIZE,
        "--epochs",
        12,
        "--batch-size",
        8,
        "--optimizer",
        "AdamW",
        "--noautoanchor",
        "--noval",
        "--noplots",
        "--cache",
        "--workers",
        0,
        "--device",
        "cpu",
        "--project",
        "runs/test",
        "--name",
        "trained",
        "--exist-ok",
    )
    return checkout / "runs" / "test" / "trained" / "weights" / "best.pt"


@pytest.fixture(scope="session")
def random_yolov7_tiny(checkouts: Callable[[str], Path]) -> Path:
    """yolov7-tiny with random weights, whose detections match nothing."""
    checkout = checkouts("yolov7")
    run_python(checkout, TASKS, "make_random", "cfg/training/yolov7-tiny.yaml", "random.pt", CLASSES)
    return checkout / "random.pt"
