"""Feeds damaged files to every parser: only results and UserErrors may come back, soon and in little memory.

    python benchmarks/fuzz.py --examples 100000

Each example is a real file of its kind with a few random changes: bytes, or parts of its structure. Prints a table by
target; what escaped is printed with the seed that makes it again (--target NAME --seed N --examples 1).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Callable, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

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
from quantization.onnx_graph.load import load_onnx
from quantization.preflight.report import preflight, report_text
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord, read_record
from quantization.upstream.shims import install_shims

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    "",
    "\0",
    "a" * 300,
    [],
    {},
    [[]],
    {"a": [{}]},
    "1",
    2.5,
]
ODD_TEXT = [
    "\0",
    "\ufeff",
    "&a [*a]",
    "<<: *a",
    "*a",
    "!!int x",
    ": ",
    "{",
    "]",
    "- ",
    "\t",
    "1e999",
    "nan",
    "-1",
    "\n",
    "\r",
]
FIXTURE = ROOT / "tests" / "fixtures" / "checkpoints" / "yolov5-0.1.pt"  # its results need a checkout


class Target(NamedTuple):
    """A parser: ``make`` gives a damaged file, ``read`` parses it and looks at all of the result."""

    suffix: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], Any]


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Up to 4 changes: bytes replaced, cut out, repeated, or words put in."""
    content = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        start = rng.randint(0, len(content))
        end = min(len(content), start + rng.choice((1, 1, 4, 30, len(content))))
        part = bytes(content[start:end])
        content[start:end] = rng.choice(
            (b"", part * 2, rng.randbytes(len(part)) if len(part) < 99 else b"", rng.choice(ODD_TEXT).encode() + part)
        )
    return bytes(content)


def change_tree(rng: random.Random, tree: Any) -> Any:
    """A copy of nested lists and dictionaries with up to 3 parts replaced, removed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(0, 3)):
        place, depth = tree, rng.randint(0, 5)
        while depth and isinstance(place, (list, dict)) and place:
            keys = list(range(len(place))) if isinstance(place, list) else list(place)
            key, depth = rng.choice(keys), depth - 1
            if depth == 0 or not isinstance(place[key], (list, dict)) or not place[key]:
                value = copy.deepcopy(rng.choice((*ODD, place[rng.choice(keys)])))
                if rng.random() < 0.3:
                    del place[key]
                elif rng.random() < 0.2 and isinstance(place, dict):
                    place[rng.choice(("", "a", "Name", "0"))] = value
                else:
                    place[key] = value
                break
            place = place[key]
    return copy.deepcopy(rng.choice(ODD)) if rng.random() < 0.02 else tree


def json_maker(tree: Any) -> Callable[[random.Random], bytes]:
    """Makes JSON files like ``tree``."""

    def make(rng: random.Random) -> bytes:
        data = json.dumps(change_tree(rng, tree)).encode()
        return change_bytes(rng, data) if rng.random() < 0.3 else data

    return make


def text_maker(*texts: str) -> Callable[[random.Random], bytes]:
    """Makes text files like one of ``texts``."""
    return lambda rng: change_bytes(
        rng, rng.choice(texts).encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
    )


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


# --- checkpoints ------------------------------------------------------------------------------------------------------

RECORD = CheckpointRecord(
    groups=[["model.1"]],
    calib_method="mse",
    backend="native",
    versions={"torch": "2"},
    options={"head": "auto", "ignore_policy": []},
    amax={"model.1._input_quantizer": 1.0},
    placement={"float_layers": ["a"], "float_weights": [], "extras": True},
    history=[{"epoch": 1, "loss": 0.1}],
).content()


def make_record(rng: random.Random) -> bytes:
    """A record, pickled."""
    return pickle.dumps(change_tree(rng, RECORD))


def read_pickled_record(file: Path) -> Any:
    """A record and what export makes of it."""
    record = read_record(pickle.loads(file.read_bytes()), str(file))  # our own pickle
    if record is not None:
        json.dumps(record.content())
        dict(record.placement or {})


def _saved(content: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _checkpoints() -> list[bytes]:
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU())
    model.model, model.stride, model.names = nn.Sequential(model[0], model[1]), torch.tensor([8.0]), ["a"]
    content = {
        "model": model,
        "ema": None,
        "quant_tools": RECORD,
        "a": np.arange(3.0),
        "b": np.float64(1),
        "c": OrderedDict(a={1, 2}),
    }
    return [
        FIXTURE.read_bytes(),
        FIXTURE.read_bytes(),
        _saved(content),
        _saved(content, zipped=False),
        _saved({"model": None, "x": [bytearray(b"a"), Path("a"), b"\xff"]}),
    ]


CHECKPOINTS: list[bytes] = []


def make_checkpoint(rng: random.Random) -> bytes:
    """A checkpoint of either format: its bytes changed, or those of its pickle alone."""
    if not CHECKPOINTS:
        CHECKPOINTS.extend(_checkpoints())
    data = rng.choice(CHECKPOINTS)
    if not data.startswith(b"PK") or rng.random() < 0.2:
        return change_bytes(rng, data)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change_opcodes(rng, content) if name.endswith("data.pkl") else content)
    return stream.getvalue()


def change_opcodes(rng: random.Random, data: bytes) -> bytes:
    """A pickle with single bytes changed, most to other opcodes."""
    content = bytearray(change_bytes(rng, data) if rng.random() < 0.3 else data)
    for _ in range(rng.randint(0, 4)):
        content[rng.randrange(len(content))] = rng.choice(
            b"().]}abRtuesQKJMXqhrjcN0129\x85\x86\x87\x81\x93\x94\x8c\xff\0"
        )
    return bytes(content)


def read_checkpoint(file: Path) -> Any:
    """As the commands do."""
    return checkpoint.load(str(file), torch.device("cpu"), "yolov5")


# --- ONNX -------------------------------------------------------------------------------------------------------------


def small_graph() -> onnx.ModelProto:
    """Two quantized convolutions with a shortcut."""
    pair = lambda x, n: [  # noqa: E731
        helper.make_node("QuantizeLinear", [x, "scale", "zero"], [f"q{n}"]),
        helper.make_node("DequantizeLinear", [f"q{n}", "scale", "zero"], [f"dq{n}"]),
    ]
    nodes = [
        *pair("x", 0),
        *pair("w", 1),
        helper.make_node("Conv", ["dq0", "dq1"], ["c"], name="/model/model.0/Conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        *pair("r", 2),
        helper.make_node("MaxPool", ["dq2"], ["m"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["m", "c"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
    ]
    weights = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "w": np.ones((4, 4, 1, 1), np.float32),
        "shape": np.array([1, -1]),
    }
    value = lambda name, shape: helper.make_tensor_value_info(name, 1, shape)  # noqa: E731
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 4, 8, 8])], [value("z", [1, 256])], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


GRAPH = small_graph()


def make_onnx(rng: random.Random) -> bytes:
    """A graph with nodes and names mixed up, or its bytes changed."""
    model = onnx.ModelProto()
    model.CopyFrom(GRAPH)
    graph = model.graph
    for _ in range(rng.randint(0, 3)):
        node = rng.choice(graph.node) if graph.node else None
        tensor = rng.choice(graph.initializer) if graph.initializer else None
        names = [name for other in graph.node for name in (*other.input, *other.output)] + ["x", "", "no"]
        what = rng.randrange(9)
        if node is not None and what < 2 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif node is not None and what == 2 and node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice(names)
        elif node is not None and what == 3:
            node.op_type = rng.choice(
                [other.op_type for other in graph.node] + ["Constant", "If", "Loop", "", "Identity"]
            )
        elif node is not None and what == 4:
            graph.node.remove(node)
        elif node is not None and what == 5:
            del node.input[:], node.attribute[:]
        elif tensor is not None and what == 6:
            tensor.dims[:] = rng.choice(([], [0], [-1], [2**40], [4], [1, 4]))
        elif tensor is not None and what == 7:
            tensor.data_type = rng.randrange(25)
        elif graph.input:
            shape = graph.input[0].type.tensor_type.shape
            rng.choice(
                (
                    shape.dim.clear if hasattr(shape.dim, "clear") else lambda: None,
                    lambda: shape.dim.add(dim_value=-5),
                    graph.input.pop,
                )
            )()
    data = model.SerializeToString()
    return change_bytes(rng, data) if rng.random() < 0.4 else data


def read_onnx(file: Path) -> Any:
    """A graph and the report on it."""
    return report_text(preflight(load_onnx(str(file))))


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
