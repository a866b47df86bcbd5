"""COCO mAP of a TensorRT engine, or of an ONNX through ONNX Runtime: python scripts/eval-engine.py --help. No torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, log_to_stdout, one_line_ending, run_main

with one_line_ending():
    from quantization.closing import Closing, closing_text
    from quantization.evaluation.class_table import class_text
    from quantization.evaluation.comparison import found_differences, some_images
    from quantization.evaluation.detecting import Predictor
    from quantization.evaluation.engine_check import one_by_one
    from quantization.evaluation.engine_predictor import EnginePredictor
    from quantization.evaluation.network import Network, data_classes, make_evaluator, open_checked
    from quantization.evaluation.onnx_predictor import OnnxPredictor
    from quantization.evaluation.saved_samples import read_reference, write_samples
    from quantization.evaluation.verdict import figures_table
    from quantization.files import check_writable, refuse_overwriting, write_json
    from quantization.options import OUTPUT_FORMAT_HELP, OUTPUT_FORMATS, DataOptions


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
    parser.add_argument(
        "--output-format", choices=OUTPUT_FORMATS, default=OUTPUT_FORMATS[0], help=OUTPUT_FORMAT_HELP + shown
    )
    parser.add_argument(
        "--onnx",
        metavar="FILE",
        default=None,
        help="what the engine was built from: compare the boxes on some of the images with ONNX Runtime's; exit code 1 if "
        "they are far off",
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


def compare_boxes(engine: EnginePredictor, reference: OnnxPredictor, files: Sequence[str]) -> bool:
    """Print how far the engine's boxes are from ONNX Runtime's on some of the images; whether it is too far."""
    images = some_images(files, engine.size)
    found = found_differences(one_by_one(reference, images), one_by_one(engine, images))
    print(f"against ONNX Runtime: {found}")
    return found.is_suspicious


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and print; the exit code."""
    options = build_parser().parse_args(arguments)
    log_to_stdout()
    if not Path(options.engine).is_file():
        raise UserError(f"{options.engine} does not exist: name a TensorRT plan or an .onnx")
    refuse_overwriting(options.engine, options.against, options.save_json, options.save_samples)
    for file, flag in ((options.save_json, "--save-json"), (options.save_samples, "--save-samples")):
        if file is not None:
            check_writable(file, flag, make_folder=False)
    names: Sequence[str] = ()
    reference = None
    if options.engine.endswith(".onnx"):
        if options.onnx is not None:
            raise UserError(f"--onnx compares an engine with its ONNX, and {options.engine} is none: leave it out")
        runtime = OnnxPredictor(options.engine, options.output_format)
        predict: Predictor = runtime
        classes, size = runtime.classes, runtime.image_size((options.imgsz, options.imgsz))
        names = runtime.class_names or ()
    else:
        reference = OnnxPredictor(options.onnx) if options.onnx is not None else None
        predict = engine = EnginePredictor.load(options.engine, options.output_format)
        classes, size = engine.classes, engine.size
    images = data_options(options)
    upstream = "yolov7" if options.objectness else "yolov5"
    classes = classes or data_classes(images, options.engine)
    network = Network(upstream, classes, tuple(names), size, options.nmsthres, options.objectness)
    checked = open_checked(images, network)
    evaluator = make_evaluator(images, network, checked.dataset, checked.truth)
    if options.against is not None:
        read_reference(options.against, evaluator)
    metrics = evaluator(predict, options.engine)
    print(class_text(metrics.content()))
    written = {}
    if options.save_json is not None:
        write_json(options.save_json, {**metrics.content(), "options": vars(options)})
        written[options.save_json] = "the figures, by class too"
    if options.save_samples is not None:
        write_samples(options.save_samples, metrics, options.engine, evaluator)
        written[options.save_samples] = "what --against compares with"
    print(closing_text(Closing(figures_table(options.engine, metrics.content()), written=written)))
    return int(reference is not None and compare_boxes(engine, reference, checked.dataset.val))


def data_options(options: argparse.Namespace) -> DataOptions:
    """Which images, and how they are read and evaluated."""
    return DataOptions(
        cocodir=options.cocodir,
        data=options.data,
        imgsz=options.imgsz,
        batch_size=options.batch_size,
        workers=options.workers,
        confidence=options.confidence,
        nmsthres=options.nmsthres,
    )


if __name__ == "__main__":
    run_main(main)
