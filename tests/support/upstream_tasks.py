"""Tasks of the upstream room that need an upstream's modules: run in a checkout, as ``checkout_tasks.py``."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, ".")

from quantization.upstream.shims import install_shims

install_shims(scripts=True)

import numpy as np
import torch

from quantization.evaluation.detecting import Found
from quantization.evaluation.ground_truth import TrueBoxes
from quantization.upstream.ap import upstream_ap


def forward(name: str, file: str, arrays: str) -> Any:
    """Outputs of a checkpoint loaded by the present code against those stored with it; what the bundle saved in it."""
    from quantization.upstream import checkpoint

    model, info = checkpoint.load(file, torch.device("cpu"), name)
    stored = np.load(arrays)
    with torch.no_grad():
        output = model(torch.from_numpy(stored["images"]).float() / 255)[0].numpy()
    kinds = sorted({type(part).__module__ for part in model.modules() if type(part).__module__.startswith("quant")})
    return {
        "difference": float(np.abs(output - stored["outputs"]).max()),
        "largest": float(np.abs(stored["outputs"]).max()),
        "keys": sorted(info),
        "modules": kinds,
    }


class Scripted(torch.nn.Module):
    """A model that gives predetermined outputs, one batch after another."""

    def __init__(self, outputs: list[torch.Tensor], names: list[str]) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))
        self.outputs, self.names = iter(outputs), names

    def forward(self, images: torch.Tensor, augment: bool = False) -> Any:
        return next(self.outputs).clone(), None


def average_precision(name: str, seed: str) -> Any:
    """MAP of the same random detections by val.py's or test.py's whole loop, and by ``upstream_ap``."""
    r = np.random.default_rng(int(seed))
    size, classes, truth, found, loader, outputs = 128, 3, [], [], [], []
    for image in range(12):
        count = 0 if image == 3 else int(r.integers(1, 6))  # one image holds nothing
        labels = r.integers(0, classes, count)
        centre, sides = 20 + 88 * r.random((count, 2)), 10 + 30 * r.random((count, 2))
        copies = np.repeat(np.arange(count), 4)
        noise = r.normal(0, 0.08, (len(copies), 4)) * np.tile(sides[copies], 2)
        wrong = r.random((5, 4)) * 60 + 30
        boxes = np.concatenate((np.concatenate((centre[copies], sides[copies]), 1) + noise, wrong))
        kinds = np.concatenate((labels[copies], r.integers(0, classes, 5)))
        raw = np.zeros((len(boxes), 5 + classes), dtype=np.float32)
        raw[:, :4], raw[:, 4] = boxes, 1
        raw[np.arange(len(boxes)), 5 + kinds] = 0.01 + 0.98 * r.random(len(boxes))
        if image == 5:
            raw[:, 4] = 0  # labels and no detection
        outputs.append(torch.from_numpy(raw[None]))
        targets = np.column_stack((np.zeros(count), labels, centre / size, sides / size)).astype(np.float32)
        shape = ((size, size), ((1.0, 1.0), (0.0, 0.0)))
        loader.append((torch.zeros(1, 3, size, size, dtype=torch.uint8), torch.from_numpy(targets), ["a.jpg"], [shape]))
        from quantization.evaluation.detections import detections, to_image

        rows = to_image(detections(raw, 0.001, 0.6), 1.0, (0.0, 0.0), (size, size))
        found.append(np.column_stack((np.full(len(rows), image), rows)))
        corners = np.concatenate((centre - sides / 2, centre + sides / 2), 1).clip(0, size)
        truth.append(np.column_stack((np.full(count, image), corners, labels)))
    names = [f"class {number}" for number in range(classes)]
    model, data = Scripted(outputs, names), {"nc": classes, "val": "", "names": dict(enumerate(names))}
    settings = {"batch_size": 1, "imgsz": size, "iou_thres": 0.6, "model": model, "dataloader": loader, "plots": False}
    if name == "yolov5":
        results = importlib.import_module("val").run(data, half=False, **settings)[0]
    else:
        test = importlib.import_module("test")
        test.opt = SimpleNamespace()  # type: ignore[attr-defined]  # read where its main would set it
        test.check_dataset = lambda _: None  # type: ignore[attr-defined]  # there is no data set
        results = test.test(data, half_precision=False, **settings)[0]
    order = np.random.default_rng(1)
    rows, marks = order.permutation(np.concatenate(found)), order.permutation(np.concatenate(truth))
    ours = upstream_ap(
        name,
        Found(rows[:, 0].astype(int), rows[:, 1:5], rows[:, 5], rows[:, 6]),
        TrueBoxes(marks[:, 0].astype(int), marks[:, 1:5], marks[:, 5], np.zeros(len(marks), bool)),
    )
    empty = upstream_ap(
        name,
        Found(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros(0)),
        TrueBoxes(marks[:, 0].astype(int), marks[:, 1:5], marks[:, 5], np.zeros(len(marks), bool)),
    )
    return {"theirs": [float(results[3]), float(results[2])], "ours": list(ours), "empty": list(empty)}


def refusals() -> list[str]:
    """Which attempts to leave the machine are refused; a connection to it and other commands are not."""
    import os
    import socket
    import subprocess

    from quantization.errors import UserError
    from quantization.upstream.offline import go_offline

    go_offline()
    go_offline()
    attempts = {
        "connect": lambda: socket.create_connection(("192.0.2.1", 443), 5),
        "look up": lambda: socket.getaddrinfo("example.com", 80),
        "pip": lambda: subprocess.check_output("pip install 'nothing-such'", shell=True),
        "curl": lambda: os.system("curl -L 'https://example.com' -o x"),
        "git fetch": lambda: subprocess.check_output(["git", "fetch", "origin"]),
        "git describe": lambda: subprocess.run("git describe || true", shell=True, capture_output=True),
    }
    refused = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except UserError:
            refused.append(name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], 5).close()
    return refused


def slow_suppression() -> dict[str, Any]:
    """Number of images with detections under a clock that leaps, before and after; whether results are the same."""
    import itertools
    import time

    from quantization.upstream.shims import lift_time_limit

    general = importlib.import_module("utils.general")
    outputs = torch.from_numpy(np.random.default_rng(0).random((3, 50, 8), np.float32)) * torch.tensor(
        [99.0] * 4 + [1] * 4
    )
    labels = [torch.tensor([[image, 50.0, 50.0, 9.0, 9.0]]) for image in range(3)]
    settings: dict[str, Any] = {"multi_label": True, "labels": labels}
    plain = general.non_max_suppression(outputs.clone(), 0.1, 0.6, **settings)
    clock, counts = time.time, []
    for lift in (False, True):
        if lift:
            lift_time_limit()
        leaps = itertools.count(0, 100)
        time.time = lambda leaps=leaps: float(next(leaps))  # type: ignore[misc]
        found = general.non_max_suppression(outputs.clone(), 0.1, 0.6, **settings)
        time.time = clock
        counts.append(sum(len(part) > 0 for part in found))
    return {"counts": counts, "same": all(torch.equal(a, b) for a, b in zip(plain, found))}


def main(arguments: list[str]) -> None:
    result = {task.__name__: task for task in (forward, average_precision, refusals, slow_suppression)}[arguments[0]](
        *arguments[1:]
    )
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
