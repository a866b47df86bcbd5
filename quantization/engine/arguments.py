"""Arguments of bench-engine.py."""

from __future__ import annotations

import argparse
from typing import Any

from quantization.argument_types import positive, positive_number

MAX_DROP = 1.0  # points, about the noise of a small validation set
EPILOG = """examples:
  bench-engine.py float.onnx --modes fp16,ptq --calib-images coco/val2017 --calib-cache float.calib --save-engine plans
  bench-engine.py float.onnx --modes fp16,ptq --engine no-rule=qat:no-rule.onnx --engine rule=qat:rule.onnx --batch 16
  bench-engine.py --load-engine plans/ptq.plan --load-engine rule=plans/rule.plan --export-profile {name}-profile.json
  bench-engine.py rule.onnx --modes qat --dry-run --trt-version 10.3
  bench-engine.py --tune variants --data data.yaml --max-drop 0.5
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    cli = argparse.ArgumentParser(
        prog="bench-engine.py",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Build TensorRT engines from ONNX and time them against each other in one interleaved run.",
    )
    _add_engines(cli.add_argument_group("engines"))
    _add_build(cli.add_argument_group("build"))
    _add_timing(cli.add_argument_group("timing"))
    _add_tune(cli.add_argument_group("tune on this GPU"))
    _add_output(cli.add_argument_group("output"))
    return cli


def _add_engines(group: Any) -> None:  # argparse keeps the class of groups private
    group.add_argument("onnx", nargs="?", help="ONNX to build in each of --modes")
    group.add_argument("--modes", default=None, help="fp16 (default), ptq, qat: a comma between several")
    group.add_argument("--engine", action="append", default=[], metavar="NAME=MODE:FILE.onnx", help="a further build")
    group.add_argument("--load-engine", action="append", default=[], metavar="[NAME=]FILE.plan", help="a plan to time")
    group.add_argument(
        "--save-engine", metavar="DIR", help="keep the plans in DIR; one that is up to date is not built again"
    )
    group.add_argument("--build-only", action="store_true", help="build and save, time nothing")
    group.add_argument(
        "--reference", metavar="NAME", help="engine that ratios are taken to (the first ptq, else the first)"
    )


def _add_build(group: Any) -> None:  # argparse keeps the class of groups private
    group.add_argument("--batch", type=positive, help="batch size of a dynamic ONNX (default 1)")
    group.add_argument("--shapes", help="shapes of a dynamic ONNX, images:16x3x640x640")
    group.add_argument("--min-shapes", help="smallest shapes that the engine takes (default: --shapes)")
    group.add_argument("--max-shapes", help="largest shapes that the engine takes (default: --shapes)")
    group.add_argument("--workspace", type=positive, metavar="MIB", help="workspace limit")
    group.add_argument("--opt-level", type=int, metavar="0-5", help="builder optimization level")
    group.add_argument("--tactics", help="the only tactic sources to use, e.g. EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS")
    group.add_argument("--no-tf32", action="store_true", help="no TF32 for FP32 layers")
    group.add_argument("--strongly-typed", action="store_true", help="strongly typed network (10.x; always from 11)")
    group.add_argument("--timing-cache", metavar="FILE", help="timing cache, read and written")
    group.add_argument(
        "--calib-images", metavar="DIR|LIST", help="images for mode ptq: folder, .txt, data.yaml or .npy"
    )
    group.add_argument("--calib-count", type=positive, default=512, help="how many of them (default 512)")
    group.add_argument("--calib-cache", metavar="FILE", help="calibration cache: used if it exists, else written")
    group.add_argument("--verbose", action="store_true", help="show TensorRT's warnings and information")


def _add_timing(group: Any) -> None:  # argparse keeps the class of groups private
    group.add_argument("--duration", type=positive_number, default=2.0, help="seconds per engine and round (default 2)")
    group.add_argument("--rounds", type=positive, default=5, help="rounds, engines interleaved (default 5)")
    group.add_argument("--warmup", type=positive_number, default=0.5, help="seconds before each (default 0.5)")
    for name, help_text in (("cuda-graph", "replay a CUDA graph"), ("spin-wait", "spin while waiting for the GPU")):
        pair = group.add_mutually_exclusive_group()
        dest = name.replace("-", "_")
        pair.add_argument(f"--{name}", dest=dest, action="store_true", default=True, help=f"{help_text} (default)")
        pair.add_argument(f"--no-{name}", dest=dest, action="store_false", help="do not")
    group.add_argument("--use-trtexec", action="store_true", help="let trtexec build and time instead")


def _add_tune(group: Any) -> None:  # argparse keeps the class of groups private
    group.add_argument(
        "--tune",
        metavar="DIR",
        help="build and time all that export --variants wrote into DIR, FP16 and implicit PTQ, and say which to take; plans "
        "and figures stay in DIR, so that a run that was interrupted goes on where it was",
    )
    group.add_argument(
        "--data", metavar="YAML", help="measure the engines' mAP on the validation images of this data.yaml too"
    )
    group.add_argument(
        "--max-drop",
        type=positive_number,
        metavar="POINTS",
        help=f"points of mAP@0.5:0.95 (of 100) that the engine to take may lose against FP16 (default {MAX_DROP:g})",
    )


def _add_output(group: Any) -> None:  # argparse keeps the class of groups private
    group.add_argument("--export-layer-info", metavar="FILE", help="layer JSON for draw-engine.py; {name}: engine")
    group.add_argument("--export-profile", metavar="FILE", help="profile JSON for draw-engine.py; {name}: engine")
    group.add_argument(
        "--check-images",
        metavar="DIR|LIST",
        help="images on which the boxes of each engine that is built are compared with ONNX Runtime's: folder, .txt or "
        "data.yaml; exit code 1 if they are far off (default: drawn images, exit code 0)",
    )
    group.add_argument(
        "--locate",
        action="store_true",
        help="where --check-images finds wrong boxes, say between which nodes the difference starts: up to five more builds",
    )
    group.add_argument("--json", metavar="FILE", help="write the report")
    group.add_argument("--dry-run", action="store_true", help="print the trtexec lines and stop; needs no TensorRT")
    group.add_argument("--trt-version", metavar="X.Y", help="version for --dry-run (default: the installed one)")
