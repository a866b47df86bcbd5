"""``export --variants`` on a real network: each variant is what quantize and export make alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.cli.options import ExportCommand
from quantization.cli.parser import parse_values
from quantization.engine.variant_folder import read_variant_folder
from quantization.errors import UserError
from quantization.onnx_graph.load import load_onnx
from quantization.option_fields import make
from quantization.placement.variants import VARIANTS
from quantization.preflight.report import preflight
from support.drawn_data import NAMES, Drawn
from support.workflow import SUPPORT, TASKS, run_python, run_task

PROGRAM = SUPPORT / "variant_tasks.py"


@pytest.fixture(scope="module")
def checkout(checkouts: Callable[[str], Path]) -> Path:
    return checkouts("yolov5")


@pytest.fixture(scope="module")
def written(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    data = Drawn(tmp_path_factory.mktemp("variant-data"))
    data.finish()
    run_python(checkout, TASKS, "make_random", "models/yolov5n.yaml", "variants.pt", len(NAMES))
    return run_task(checkout, "both", "variants.pt", data.root / "data.yaml", program=PROGRAM)


def test_each_is_what_its_options_make_alone(written: Any, checkout: Path) -> None:
    assert written["float"]["same"] and written["float"]["scales"] > 90 and written["float"]["code"] == 0
    folder = read_variant_folder(str(checkout / "variants"))
    # the stem has a stride: "auto" leaves it in float
    assert [variant.name for variant in folder.variants] == ["float", "default", "sums-float"]
    assert folder.size == (64, 64) and folder.iou == 0.6 and folder.names == ("class 0", "class 1", "class 2")


def test_the_file_tells_which_sums_are_float_on_purpose(written: Any, checkout: Path) -> None:
    assert preflight(load_onnx(str(checkout / "variants" / "sums-float.onnx"))).passed


def test_a_quantized_checkpoint_gives_those_with_fewer_quantizers(written: Any) -> None:
    """That of sums-float: its stem has no scale."""
    found = written["quantized"]
    assert list(found["listed"]) == ["float", "checkpoint", "head-float"] and found["code"] == 0
    assert found["listed"]["checkpoint"] == [] and found["listed"]["head-float"][-2:] == ["--head", "float"]
    assert found["new scales"] == []


def values(*words: str) -> ExportCommand:
    """The options of a command line."""
    _, given, _ = parse_values("yolov5", ["export", "best.pt", *words])
    return make(ExportCommand, given)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data", "data.yaml"], "--data is for --variants"),
        (["--calib-method", "mse"], "--calib-method is for --variants"),
        (["--ignore-policy", "model"], "--ignore-policy is for --variants"),
        (["--variants", "d", "--save", "a.onnx"], "--save is for one ONNX"),
        (["--variants", "d", "--triton", "t"], "--triton is for one ONNX"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        values(*words)
    assert values("--variants", "d", "--data", "data.yaml", "--calib-batches", "3").calibration.batches == 3


def test_the_table_is_a_dozen_with_fp16_and_implicit_ptq() -> None:
    names = [variant.name for variant in VARIANTS]
    # of a stem in float and one in INT8 one is the default
    assert len(names) - 1 + 2 <= 12 and len(set(names)) == len(names) and not {"fp16", "ptq", "float"} & set(names)
