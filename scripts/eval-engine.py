"""COCO mAP of a TensorRT engine, or of an ONNX through ONNX Runtime: python scripts/eval-engine.py --help. No torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, log_to_stdout, one_line_ending, run_main

with one_line_ending():
    from quantization.argument_types import positive
    from quantization.closing import Closing, closing_text
    from quantization.data.dataset import open_dataset
    from quantization.engine.bench import EngineBoxes
    from quantization.evaluation.class_table import class_text
    from quantization.evaluation.comparison import NamedImages, some_images
    from quantization.evaluation.detecting import Thresholds
    from quantization.evaluation.engine_check import compared_boxes, not_compared, one_by_one
    from quantization.evaluation.network import Network, data_classes, fit_dataset, make_evaluator
    from quantization.evaluation.onnx_predictor import CannotRun, OnnxPredictor
    from quantization.evaluation.opened import OpenedNetwork, open_network
    from quantization.evaluation.saved_samples import compare_with, read_samples, write_samples
    from quantization.evaluation.verdict import COMPARED, figures_table
    from quantization.files import check_named_files, write_json
    from quantization.onnx_graph.origin import file_origin
    from quantization.options import DEFAULT_SIDE, OUTPUT_FORMAT_HELP, OUTPUT_FORMATS, DataOptions


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="eval-engine.py", description=__doc__)
    shown = " (default: %(default)s)"
    parser.add_argument("engine", metavar="ENGINE", help="plan built on this GPU (bench-engine.py, trtexec), or .onnx")
    parser.add_argument("--cocodir", metavar="DIR", default=None, help="COCO-layout folder")
    parser.add_argument("--data", metavar="YAML", default=None, help="YOLO data.yaml instead of --cocodir")
    parser.add_argument(
        "--imgsz",
        type=positive,
        default=None,
        help=f"image side, where the network leaves it open (default: {DEFAULT_SIDE})",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch; an engine may split them" + shown)
    parser.add_argument("--workers", type=int, default=4, help="threads that read images" + shown)
    parser.add_argument("--confidence", type=float, default=0.001, help="minimum detection score" + shown)
    parser.add_argument(
        "--nmsthres",
        type=float,
        default=None,
        help="IoU threshold of non-maximum suppression; default: that of the upstream that the network was exported from "
        "(0.6 of YOLOv5's val.py, 0.65 of YOLOv7's test.py), as its ONNX, or the .json beside its plan, tells; else 0.65",
    )
    parser.add_argument(
        "--objectness",
        action="store_true",
        help="score one-class models by objectness, as YOLOv7 does; of a network that was exported from it always",
    )
    parser.add_argument(
        "--output-format", choices=OUTPUT_FORMATS, default=OUTPUT_FORMATS[0], help=OUTPUT_FORMAT_HELP + shown
    )
    parser.add_argument(
        "--onnx",
        metavar="FILE",
        default=None,
        help="what the engine was built from: compare the boxes on some of the images with ONNX Runtime's; exit code 1 if "
        "they are far off; a note where ONNX Runtime is missing, or cannot run the file, as one with EfficientNMS_TRT",
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


def open_reference(options: argparse.Namespace) -> OnnxPredictor | EngineBoxes | None:
    """What the engine is compared with, or why it cannot be; None: it is not asked for.

    Raises:
        UserError: the file is no detection network.
    """
    if options.onnx is None:
        return None
    try:
        return OnnxPredictor(options.onnx, options.output_format)
    except CannotRun as error:  # that says nothing against the engine, whose mAP is wanted
        return not_compared(error)


def compare_boxes(
    engine: OpenedNetwork, reference: OnnxPredictor | EngineBoxes | None, source: NamedImages
) -> EngineBoxes | None:
    """How far the engine's boxes are from ONNX Runtime's on some of the images; None: it is not asked for."""
    if not isinstance(reference, OnnxPredictor):
        return reference
    images = some_images(source.files, engine.size)
    return compared_boxes(engine.predict, images, one_by_one(reference, images), source)


def check_files(options: argparse.Namespace) -> None:
    """Refuse files that are missing, of another kind, or cannot be written."""
    if options.engine.endswith((".pt", ".pth")):
        raise UserError(
            f"{options.engine} is a checkpoint: evaluate it by the command test of the qat script, or export it"
        )
    for file, what in ((options.engine, "a TensorRT plan or an .onnx"), (options.onnx, "the ONNX of the engine")):
        if file is not None and not Path(file).is_file():
            raise UserError(f"{file} does not exist: name {what}")
    if options.onnx is not None and options.engine.endswith(".onnx"):
        raise UserError(f"--onnx compares an engine with its ONNX, and {options.engine} is none: leave it out")
    made = [("--save-json", options.save_json), ("--save-samples", options.save_samples)]
    check_named_files([options.engine, options.onnx, options.against], made)


def describe(options: argparse.Namespace, opened: OpenedNetwork, images: DataOptions) -> Network:
    """The network as the evaluation sees it; what its own upstream decides counts where the file tells which it is."""
    origin = opened.origin if options.onnx is None else opened.origin or file_origin(options.onnx)
    objectness = options.objectness or (origin is not None and origin.objectness_only)
    upstream = "yolov7" if objectness else "yolov5" if origin is None else origin.upstream
    iou = Thresholds().iou if origin is None else origin.iou
    if options.nmsthres is None:
        reason = "does not tell its upstream (YOLOv5 takes 0.6)" if origin is None else f"comes from {origin.upstream}"
        print(f"{options.engine} {reason}, so NMS IoU is {iou:g}: --nmsthres changes it")
    classes = opened.classes or data_classes(images, options.engine)
    return Network(upstream, classes, opened.names, opened.size, iou, objectness)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and print; the exit code."""
    options = build_parser().parse_args(arguments)
    log_to_stdout()
    check_files(options)
    images = data_options(options)
    against = None if options.against is None else read_samples(options.against)
    named = open_dataset(options.cocodir, options.data)  # before the engine, which takes longer
    reference = open_reference(options)
    opened = open_network(options.engine, options.output_format, options.imgsz)
    network = describe(options, opened, images)
    checked = fit_dataset(named, network)
    evaluator = make_evaluator(images, network, checked.dataset, checked.truth)
    if against is not None:
        compare_with(against, evaluator)
    metrics = evaluator(opened.predict, options.engine)
    print(class_text(metrics.content()))
    boxes = compare_boxes(opened, reference, NamedImages(named.source, checked.dataset.val))
    written = {}
    if options.save_json is not None:
        used = {**vars(options), "nmsthres": evaluator.thresholds.iou}
        compared = {} if boxes is None else {COMPARED: boxes._asdict()}
        write_json(options.save_json, {**metrics.content(), **compared, "options": used})
        written[options.save_json] = "the figures, by class too"
    if options.save_samples is not None:
        write_samples(options.save_samples, metrics, options.engine, evaluator)
        written[options.save_samples] = "what --against compares with"
    print(closing_text(Closing(figures_table(options.engine, metrics.content()), written=written)))
    if boxes is not None:
        print(boxes.text)
    return int(boxes is not None and boxes.are_wrong)


def data_options(options: argparse.Namespace) -> DataOptions:
    """Which images, and how they are read and evaluated."""
    return DataOptions(
        cocodir=options.cocodir,
        data=options.data,
        batch_size=options.batch_size,
        workers=options.workers,
        confidence=options.confidence,
        nmsthres=options.nmsthres,
    )


if __name__ == "__main__":
    run_main(main)
