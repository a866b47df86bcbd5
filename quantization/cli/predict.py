"""Command line of scripts/predict.py: everything is checked, then the images are looked at."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from typing import Sequence

from quantization.cli.parser import add_options
from quantization.closing import Closing, tell
from quantization.data.data_yaml import read_data_yaml
from quantization.data.dataset import Dataset, open_dataset
from quantization.data.input_size import input_size
from quantization.errors import UserError, log_to_stdout
from quantization.evaluation.ground_truth import GroundTruth
from quantization.evaluation.network import Network, fit_dataset
from quantization.files import check_writable
from quantization.option_fields import make
from quantization.options import DataOptions
from quantization.viewing.detector import ImageDetector, open_runtime, shared_names
from quantization.viewing.options import PredictCommand
from quantization.viewing.results import Overview
from quantization.viewing.run import LabelsOf, labels_of, look, no_labels, write_pictures
from quantization.viewing.sources import ImageFiles, Source, open_source

LOG = logging.getLogger("quantization")


def predict_parser() -> argparse.ArgumentParser:
    """The parser."""
    text = str(PredictCommand.__doc__)
    parser = argparse.ArgumentParser(prog="predict.py", description=f"{text} No torch, but for .pt.")
    add_options(parser, PredictCommand)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, draw and say where; the exit code."""
    # intermixed: images may stand before and behind the options
    options = make(PredictCommand, vars(predict_parser().parse_intermixed_args(arguments)))
    log_to_stdout()
    out = _empty_folder(Path(options.out))
    source = open_source(options.images, options.every) if options.images else None
    named = None if source is not None else open_dataset(options.cocodir, options.data)
    names = read_data_yaml(Path(options.data)).names if options.data else []
    detectors = _detectors(options, len(names) or None)
    names = shared_names(detectors, names, f"--data {options.data}")
    labels: LabelsOf = no_labels
    if named is not None:
        source, labels = _data_set(named, detectors[0].network)
    assert source is not None
    asked = Overview(
        [detector.file for detector in detectors],
        names,
        options.conf,
        options.iou,
        [detector.network.size for detector in detectors],
    )
    summary = look(detectors, source, labels, asked)
    if not summary.results:
        raise UserError("no image was read: name others, or a smaller --every")
    page = write_pictures(summary, source, out, options.worst)
    for model, boxes, missed, false in summary.errors:
        LOG.info("%s: %d boxes, %d labels missed, %d boxes false", model, boxes, missed, false)
    written = {str(page): "the worst images first: open it in a browser", str(out / "pictures"): "all of them"}
    tell(Closing(verdict=summary.headline, written={**written, str(out / "predictions.json"): "all boxes"}))
    return 0


def _empty_folder(out: Path) -> Path:
    """Refuses a folder that holds something, so that no picture of another run stays among these."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists already: name a new folder")
    check_writable(out / "index.html", "--out", make_folder=False)
    return out


def _data_set(named: Dataset, network: Network) -> tuple[Source, LabelsOf]:
    """The validation images and their labels."""
    checked = fit_dataset(named, network)
    truth = checked.truth or GroundTruth(checked.dataset, network.classes, network.names)
    return ImageFiles(truth.files), labels_of(truth)


def _detectors(options: PredictCommand, classes: int | None) -> list[ImageDetector]:
    """The models; a .pt takes the size that the other one has."""
    files = [options.model] + ([options.compare] if options.compare else [])
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"{file} does not exist: name a .pt, an .onnx or a TensorRT plan")
    loaded = {file: open_runtime(options, file, classes) for file in files if not _is_torch(file)}
    size = next(
        (detector.network.size for detector in loaded.values()), input_size((None, None), options.imgsz, files[0])
    )
    for file in files:
        if _is_torch(file):
            loaded[file] = _torch_detector(file, options, size)
    result = [loaded[file] for file in files]
    objectness = any(detector.network.objectness_only for detector in result)  # of all, or the scores differ
    return [replace(item, network=replace(item.network, objectness_only=objectness)) for item in result]


def _is_torch(file: str) -> bool:
    return file.endswith(".pt")


def _torch_detector(file: str, options: PredictCommand, size: tuple[int, int]) -> ImageDetector:
    """A checkpoint, in the checkout that this is in."""
    from quantization.upstream.checkout import enter_checkout, upstream_of

    folder = Path(__file__).resolve().parents[2]
    name = upstream_of(folder)
    if name is None:
        raise UserError(
            f"{file} needs its upstream, and {folder} is no yolov5 or yolov7 checkout: "
            "run cp -r quantization scripts /path/to/checkout, and scripts/predict.py from there, or give an .onnx"
        )
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{file} needs torch, which is not installed: give an .onnx or an engine")
    enter_checkout(name, folder)
    from quantization.data.tensors import pick_device
    from quantization.quantizers.switches import uncalibrated
    from quantization.upstream import checkpoint
    from quantization.upstream.network import check_size, torch_network
    from quantization.upstream.predictor import torch_predictor

    model, _ = checkpoint.load(file, pick_device(options.run.device), name, options.run.trust_weights)
    for side in size:
        check_size(side, model, "--imgsz")
    missing = uncalibrated(model)
    if missing:
        raise UserError(f"{file} was never calibrated ({missing[0]} has no scale): run quantize first")
    network = torch_network(name, model, file, DataOptions(imgsz=max(size)))
    objectness = network.objectness_only or options.objectness
    return ImageDetector(file, torch_predictor(model), replace(network, size=size, objectness_only=objectness))
