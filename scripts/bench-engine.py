#!/usr/bin/env python3
"""Build TensorRT engines from ONNX and time them against each other: see --help."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quantization.errors import run_main

if TYPE_CHECKING:
    from quantization.engine.bench import Check
    from quantization.engine.tune import AccuracyMeter
    from quantization.engine.variant_folder import VariantFolder


def make_check(source: str | None, locate: bool) -> Check:
    """What compares boxes; imported here because it needs OpenCV, which a machine that only builds and times may lack."""
    from quantization.engine.bench import EngineBoxes

    try:
        from quantization.evaluation.comparison import named_images
        from quantization.evaluation.engine_check import EngineCheck
    except ImportError as error:
        text = f"boxes are not compared with ONNX Runtime's ({error})"
        return lambda engine, onnx, rebuild: EngineBoxes(text, False, False)
    return EngineCheck(None if source is None else named_images(source), locate)


def make_meter(folder: VariantFolder, data: str, samples: str) -> AccuracyMeter:
    """What measures mAP; imported here because it needs OpenCV and pycocotools."""
    from quantization.errors import UserError, log_to_stdout, missing_package

    try:
        import pycocotools.cocoeval  # noqa: F401  # it would be missed after the first build only

        from quantization.evaluation.engine_meter import EngineMeter
    except ImportError as error:
        raise UserError(
            f"--data: engines cannot be evaluated here ({error}): pip install {missing_package(error)}, or leave --data out"
        ) from error
    log_to_stdout()
    return EngineMeter(folder, data, samples)


def main(arguments: Sequence[str] | None) -> int:
    """Parse and carry out; imported here because it takes a while, in which a signal may come."""
    from quantization.engine.cli import main as command

    return command(arguments, make_check=make_check, make_meter=make_meter)


if __name__ == "__main__":
    run_main(main)
