"""Feeds damaged files to every parser: only results and UserErrors may come back, soon and in little memory.

    python benchmarks/fuzz.py --examples 100000

Each example is a real file of its kind with a few random changes: bytes, or parts of its structure. Prints a table by
target; what escaped is printed with the seed that makes it again (--target NAME --seed N --examples 1).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from fuzz_changes import json_maker, text_maker
from fuzz_networks import (
    make_checkpoint,
    make_onnx,
    make_record,
    read_checkpoint,
    read_onnx,
    read_pickled_record,
)

from quantization.cli.options import COMMANDS
from quantization.cli.parser import read_config
from quantization.data.data_yaml import read_data_yaml, split_sources
from quantization.data.dataset import open_dataset
from quantization.data.labels import label_refusal, parse_labels
from quantization.data.listing import find_images
from quantization.errors import UserError
from quantization.evaluation.coco_json import read_coco
from quantization.inspector.layers import load_layers
from quantization.inspector.times import add_profile
from quantization.upstream.shims import install_shims


class Target(NamedTuple):
    """A parser: ``make`` gives a damaged file, ``read`` parses it and looks at all of the result."""

    suffix: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], Any]


# --- text -------------------------------------------------------------------------------------------------------------

LABELS = ("0 0.5 0.5 0.2 0.2\n1 0.1 0.9 0.05 0.1\n", "0 0.1 0.1 0.2 0.1 0.2 0.3\n", "2 .5 .5 1 1\n\n0 0 0 1e-3 1\n")
LISTS = ("./a.jpg\n# comment\n./b.png\nx.txt\n", "a.jpg\r\n\r\na.jpg\r\n")
YAMLS = (
    "path: .\ntrain: images\nval: [images, list.txt]\nnc: 2\nnames: [a, b]\n",
    "train: images\nval: images\nnames:\n  0: a\n  1: b\n",
    "a: &a [1, 2]\nb: &b [*a, *a]\ntrain: *b\nval: images\nnames: {0: a, b: 1, 2.5: c}\n",
    "a: &a {b: *a}\ntrain: &t [*t]\nval: 2001-13-40\nnc: !!int ''\nnames: ? [1]\n",
    "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(12))
    + "train: *a11\nval: x\n",
)
CONFIGS = (
    "calib-method: mse\nimgsz: 64\nignore-policy: [a, b]\nqat: q.pt\n",
    "lr: 1e-5\nbatch-size: 4\neval-ptq: true\nhead: auto\nmax-drop: 0.01\n",
)


def read_label(file: Path) -> Any:
    """Labels of both upstreams."""
    for upstream in ("yolov5", "yolov7"):
        label_refusal(parse_labels(file, upstream), file, 2)


def read_yaml_data(file: Path) -> Any:
    """A data.yaml and the images that it names."""
    content = read_data_yaml(file)
    for part, entries in (("train", content.train), ("val", content.val)):
        split_sources(content, part, entries)
    open_dataset(data=str(file))


# --- JSON -------------------------------------------------------------------------------------------------------------

COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 60, "width": 80} for n in range(3)],
    "annotations": [
        {"id": n, "image_id": n % 3, "category_id": n % 2, "bbox": [1, 2, 9, 8], "area": 72, "iscrowd": 0}
        for n in range(5)
    ],
    "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b", "supercategory": "c"}],
}


def read_annotations(file: Path) -> Any:
    """A COCO JSON and every box in it."""
    content = read_coco(file)
    for image in content.images:
        list(content.boxes(image.key))


TENSOR = {"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP32"}
LAYER_KEYS = {"LayerType": "CaskConvolution", "ParameterType": "Convolution", "TacticName": "t", "StreamId": 0}
LAYERS = {
    "Layers": [
        {
            "Name": "a",
            "Inputs": [TENSOR],
            "Outputs": [{**TENSOR, "Name": "y"}],
            **LAYER_KEYS,
            "Metadata": "[ONNX Layer: /model/a]",
        },
        {"Name": "b", "Inputs": [], "Outputs": [{**TENSOR, "Format/Datatype": "Int8"}], "LayerType": "Reformat"},
    ],
    "Bindings": ["x", "y"],
}
PROFILE = [
    {"count": 10},
    *({"name": n, "timeMs": 1.5, "averageMs": 0.15, "medianMs": 0.1, "percentage": 50} for n in "ab"),
]


def read_layers(file: Path) -> Any:
    """Layer information and what is told of each layer."""
    for layer in load_layers(file).layers:
        for name in (
            "kind",
            "precision",
            "nodes",
            "operations",
            "module",
            "title",
            "reason",
            "type_change",
            "keeps_scale",
        ):
            getattr(layer, name)


def read_profile(file: Path) -> Any:
    """A profile of an engine of two layers."""
    layers = file.with_name("engine-layer.json")
    if not layers.is_file():
        layers.write_text(json.dumps(LAYERS))
    return add_profile(load_layers(layers), file)


TARGETS = {
    "labels": Target(".txt", text_maker(*LABELS), read_label),
    "image list": Target(".txt", text_maker(*LISTS), lambda file: find_images([file], "val")),
    "data.yaml": Target(".yaml", text_maker(*YAMLS), read_yaml_data),
    "--config": Target(".yaml", text_maker(*CONFIGS), lambda file: read_config(str(file), COMMANDS["quantize"])),
    "COCO JSON": Target(".json", json_maker(COCO), read_annotations),
    "layers": Target("-layer.json", json_maker(LAYERS), read_layers),
    "profile": Target("-profile.json", json_maker(PROFILE), read_profile),
    "record": Target(".bin", make_record, read_pickled_record),
    "checkpoint": Target(".pt", make_checkpoint, read_checkpoint),
    "ONNX": Target(".onnx", make_onnx, read_onnx),
}


def try_one(target: Target, seed: int | random.Random, folder: Path) -> BaseException | None:
    """What a parser raised of one example; None: it gave a result."""
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    file = folder / f"a{target.suffix}"
    file.write_bytes(target.make(rng))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            target.read(file)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, f"no one line: {str(error)[:200]!r}"
        return error
    except Exception as error:
        return error
    return None


def prepare(folder: Path) -> None:
    """Images for the lists and data.yaml files."""
    (folder / "images").mkdir(exist_ok=True)
    import cv2

    for name in ("a.jpg", "b.png", "images/a.jpg"):
        cv2.imwrite(str(folder / name), np.zeros((16, 16, 3), np.uint8))
    (folder / "list.txt").write_text("./a.jpg\n")


def run(name: str, target: Target, count: int, seed: int, folder: Path) -> int:
    """Print the row of a target; the number of examples that escaped."""
    counts, slowest = {"results": 0, "UserErrors": 0, "others": 0}, (0.0, seed)
    escaped: dict[str, int] = {}
    for number in range(seed, seed + count):
        start = time.perf_counter()
        try:
            found = try_one(target, number, folder)
        except AssertionError as error:
            found = error
        slowest = max(slowest, (time.perf_counter() - start, number))
        kind = "results" if found is None else "UserErrors" if isinstance(found, UserError) else "others"
        counts[kind] += 1
        if kind == "others":
            escaped.setdefault(f"{type(found).__name__}: {str(found)[:120]}", number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    cells = (name, count, *counts.values(), f"{slowest[0]:.2f} ({slowest[1]})", f"{peak:.0f}")
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for text, number in list(escaped.items())[:20]:
        print(f"  seed {number}: {text}", file=sys.stderr, flush=True)
    return counts["others"]


def main() -> int:
    """The table; exit code 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--examples", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the first example")
    parser.add_argument("--target", choices=TARGETS, help="one target alone")
    parser.add_argument("--checkout", default=".", help="yolov5 checkout, whose layers checkpoints may hold")
    options = parser.parse_args()
    sys.path.insert(1, str(Path(options.checkout).resolve()))
    chosen = {name: target for name, target in TARGETS.items() if options.target in (None, name)}
    print(
        "| target | examples | results | UserErrors | others | slowest, s (seed) | peak memory, MB |\n"
        + "|---" * 7
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        prepare(Path(folder))
        install_shims()
        logging.getLogger("quantization").setLevel(logging.ERROR)
        try_one(TARGETS["checkpoint"], 0, Path(folder))  # upstream's modules are imported once
        each = max(1, options.examples // len(chosen))
        return int(any([run(name, target, each, options.seed, Path(folder)) for name, target in chosen.items()]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
