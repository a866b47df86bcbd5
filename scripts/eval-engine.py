"""COCO mAP of a TensorRT engine, or of an ONNX through ONNX Runtime: python scripts/eval-engine.py --help. No torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, log_to_stdout, run_main
from quantization.evaluation.coco import Predictor
from quantization.evaluation.network import Network, make_evaluator, open_checked
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.evaluation.saved_samples import read_reference, write_samples
from quantization.evaluation.wording import class_lines
from quantization.files import check_writable, refuse_overwriting, write_json
from quantization.options import DataOptions


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="eval-engine.py", description=__doc__)
    shown = " (default: %(default)s)"
    parser.add_argument("engine", metavar="ENGINE", help="plan built on this GPU (bench-engine.py, trtexec), or .onnx")
    parser.add_argument("--cocodir", metavar="DIR", default=None, help="COCO-layout folder")
    parser.add_argument("--data", metavar="YAML", default=None, help="YOLO data.yaml instead of --cocodir")
    parser.add_argument("--imgsz", type=int, default=640, help="image side, where the network leaves it open" + shown)
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch; an engine may split them" + shown)
    parser.add_argument("--workers", type=int, default=4, help="threads that read images" + shown)
    parser.add_argument("--confidence", type=float, default=0.001, help="minimum detection score" + shown)
    parser.add_argument(
        "--nmsthres",
        type=float,
        default=0.65,
        help="IoU threshold of non-maximum suppression; of YOLOv5's val.py 0.6, of YOLOv7's test.py 0.65" + shown,
    )
    parser.add_argument(
        "--objectness", action="store_true", help="score one-class models by objectness, as YOLOv7 does"
    )
    parser.add_argument("--save-json", metavar="FILE", default=None, help="write the figures to this file")
    parser.add_argument(
        "--save-samples", metavar="NPZ", default=None, help="write what a later --against compares with"
    )
    parser.add_argument(
        "--against",
        metavar="NPZ",
        default=None,
        help="give the differences to this network too, each with its 95 %% interval: a file that --save-samples, here or "
        "of the command test, wrote for the float model on the same images",
    )
    return parser


def load_engine(file: str) -> tuple[Predictor, int, tuple[int, int]]:
    """A TensorRT predictor, its number of classes and its input size (H, W).

    Raises:
        UserError: it is no detection network.
    """
    from quantization.engine.cuda import Cuda
    from quantization.engine.runtime import Engine

    engine = Engine.load(file, Cuda())
    shape = tuple(engine.context.get_tensor_shape(engine.outputs[0]))
    if len(engine.opt_shape) != 4 or len(shape) != 3 or shape[2] < 6:
        raise UserError(
            f"{file} does not take (B, 3, H, W) and give (B, boxes, 5 + classes), but {engine.opt_shape} "
            f"and {shape}: build it from the export command's ONNX"
        )
    return engine, shape[2] - 5, (engine.opt_shape[2], engine.opt_shape[3])


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and print; the exit code."""
    options = build_parser().parse_args(arguments)
    log_to_stdout()
    refuse_overwriting(options.engine, options.against, options.save_json, options.save_samples)
    for file, flag in ((options.save_json, "--save-json"), (options.save_samples, "--save-samples")):
        if file is not None:
            check_writable(file, flag)
    names: Sequence[str] = ()
    if options.engine.endswith(".onnx"):
        runtime = OnnxPredictor(options.engine)
        predict: Predictor = runtime
        classes, size = runtime.classes, runtime.image_size((options.imgsz, options.imgsz))
        names = runtime.class_names or ()
    else:
        predict, classes, size = load_engine(options.engine)
    upstream = "yolov7" if options.objectness else "yolov5"
    network = Network(upstream, classes, tuple(names), size, options.nmsthres, options.objectness)
    images = DataOptions(
        cocodir=options.cocodir,
        data=options.data,
        imgsz=options.imgsz,
        batch_size=options.batch_size,
        workers=options.workers,
        confidence=options.confidence,
        nmsthres=options.nmsthres,
    )
    evaluator = make_evaluator(images, network, open_checked(images, network).dataset)
    if options.against is not None:
        read_reference(options.against, evaluator)
    metrics = evaluator(predict, options.engine)
    for line in class_lines(metrics.content()):
        print(f"  {line}")
    if options.save_json is not None:
        write_json(options.save_json, {**metrics.content(), "options": vars(options)})
    if options.save_samples is not None:
        write_samples(options.save_samples, metrics, options.engine, evaluator)
    return 0


if __name__ == "__main__":
    run_main(main)
