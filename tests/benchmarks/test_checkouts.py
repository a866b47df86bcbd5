"""The checkouts that the other tests run in: complete, free of the packages' prefixes, and upstream's own nets."""

from __future__ import annotations

import os
import py_compile
import re
from pathlib import Path

import pytest

from checkouts import PACKAGES, install_bundle, make_checkout, strip_prefix
from support.workflow import SUPPORT, run_task

TASKS = SUPPORT / "architecture_tasks.py"
# parameters with 80 classes, counted on nets built from the real clones' own yaml
PARAMETERS = {
    "models/yolov5n.yaml": 1872157,
    "models/yolov5s.yaml": 7235389,
    "cfg/training/yolov7-tiny.yaml": 6228762,
    "cfg/training/yolov7.yaml": 37622682,
    "cfg/deploy/yolov7-tiny.yaml": 6227101,
    "cfg/deploy/yolov7.yaml": 37620125,
}


@pytest.fixture(scope="module", params=sorted(PACKAGES))
def checkout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkout(request.param, tmp_path_factory.mktemp("checkouts") / request.param)
    install_bundle(folder)
    return folder


def describe(checkout: Path, *cfgs: str) -> dict[str, dict]:
    return run_task(checkout, "described", checkout.name, *cfgs, program=TASKS)


def test_nets_build_and_run_forward(checkout: Path) -> None:
    cfgs = [cfg for cfg in PARAMETERS if (checkout / cfg).is_file()]
    assert len(cfgs) == (2 if checkout.name == "yolov5" else 4)
    nets = describe(checkout, *cfgs)
    for cfg in cfgs:
        assert nets[cfg]["parameters"] == PARAMETERS[cfg], cfg
        # (batch, anchors, height, width, 5 + classes) at strides 8, 16, 32
        assert nets[cfg]["shapes"] == [[2, 3, side, side, 85] for side in (8, 4, 2)], cfg


@pytest.mark.skipif(not os.environ.get("YOLOV7_DIR"), reason="compares with a clone of yolov7: set YOLOV7_DIR")
def test_our_tables_equal_upstreams_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = Path(os.environ["YOLOV7_DIR"])
    monkeypatch.delenv("YOLOV7_DIR")
    folder = make_checkout("yolov7", tmp_path / "yolov7")
    install_bundle(folder)
    cfgs = [cfg for cfg in PARAMETERS if cfg.startswith("cfg/")]
    nets = describe(folder, *cfgs, *(str(clone / cfg) for cfg in cfgs))
    for cfg in cfgs:
        assert nets[cfg] == nets[str(clone / cfg)]


def test_sources_compile_and_import_no_package(checkout: Path, tmp_path: Path) -> None:
    modules = [path for path in checkout.rglob("*.py") if path.relative_to(checkout).parts[0] != "quantization"]
    assert {"train.py", "export.py", "yolo.py", "general.py"} <= {path.name for path in modules}
    prefixed = re.compile(r"^\s*(from|import) (yolov5|yolov7)\b", re.MULTILINE)
    for path in modules:
        py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
        assert not prefixed.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "before, after",
    [
        ("from yolov5.utils.general import x", "from utils.general import x"),
        ("    from yolov5.export import run", "    from export import run"),
        ("import yolov5.val as validate", "import val as validate"),
        ("from yolov5 import __version__", '__version__ = "7.0.0"'),
        ("url = 'ultralytics/yolov5.git'", "url = 'ultralytics/yolov5.git'"),
    ],
)
def test_strip_prefix(before: str, after: str) -> None:
    assert strip_prefix(before, "yolov5") == after


def test_bundle_merges_with_upstreams_scripts(checkout: Path) -> None:
    assert (checkout / "scripts" / f"qat-{checkout.name}.py").is_file()
    assert (checkout / "quantization" / "upstream" / "checkout.py").is_file()
    if checkout.name == "yolov7":
        assert (checkout / "scripts" / "get_coco.sh").is_file()


def test_wrong_clone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOV5_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="YOLOV5_DIR"):
        make_checkout("yolov5", tmp_path / "made")
