"""A QAT step next to a step of plain float training of the same network, in one run.

    python benchmarks/qat_step.py --upstream yolov5 --checkout path/to/yolov5 --net models/yolov5s.yaml --batch-size 16

Float training is upstream's network in train mode with upstream's ComputeLoss and the same optimizer, with the same
images, batch size and precision. Weights are random and the images are noise: neither time nor memory depends on them.
Memory is everything allocated while the steps run; for it, each side runs alone in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Tuple

import bundle  # noqa: F401  # puts quantization on the import path
from architectures import CLASSES, CONFIGURATIONS
from random_net import quantized_copy, random_net
from turns import Timing, machine, take_turns

from quantization.calibration.calibrate import calibrate_model
from quantization.upstream.loss import detection_loss

HYPERPARAMETERS = {"yolov5": "data/hyps/hyp.scratch-low.yaml", "yolov7": "data/hyp.scratch.p5.yaml"}
OBJECTS = 8  # per image, in the float training's labels
SIDES = ("float training", "QAT")
Side = Tuple[Callable[[], object], Callable[[], Any]]  # a step, and the context in which it may be called


def float_training(options: argparse.Namespace, net: Any, images: Any) -> Side:
    """Upstream's training step: forward in train mode, ComputeLoss, backward, optimizer."""
    import contextlib

    import torch
    import yaml
    from utils.loss import ComputeLoss

    from quantization.qat.trainer import AMP_TYPES, make_optimizer, make_scaler

    device = images.device
    model = net.to(device).train()
    with open(HYPERPARAMETERS[options.upstream], encoding="utf-8") as file:
        model.hyp = {"label_smoothing": 0.0, **yaml.safe_load(file)}
    model.gr = 1.0  # yolov7's loss reads it
    compute_loss = ComputeLoss(model)
    amp = AMP_TYPES[options.amp] if device.type == "cuda" else None
    scaler = make_scaler(device, amp == torch.float16)
    optimizer = make_optimizer([part for part in model.parameters() if part.requires_grad], [], device)
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    labels = random_labels(images)

    def step() -> None:
        with torch.autocast(device.type, dtype=amp or torch.bfloat16, enabled=amp is not None):
            loss = compute_loss(model(images), labels)[0]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step, contextlib.nullcontext


def random_labels(images: Any) -> Any:
    """Image, class, x, y, w, h of ``OBJECTS`` objects per image."""
    import torch

    labels = torch.rand(len(images) * OBJECTS, 6)
    labels[:, 0] = torch.arange(len(images)).repeat_interleave(OBJECTS)
    labels[:, 1] = (labels[:, 1] * CLASSES).floor()
    labels[:, 4:] = 0.05 + 0.25 * labels[:, 4:]
    return labels.to(images.device)


def qat(options: argparse.Namespace, net: Any, images: Any) -> Side:
    """The step of the quantize command."""
    from quantization.options import QatOptions
    from quantization.qat.losses import TaskLoss
    from quantization.qat.trainer import Trainer
    from quantization.upstream import model as upstream

    teacher = upstream.fuse(net).to(images.device).eval()
    student = quantized_copy(teacher)
    calibrate_model(student, [images[:2]], "max")
    task = (
        TaskLoss(student.model[-1], detection_loss(options.upstream, student, options.imgsz), options.task_weight)
        if options.task_weight
        else None
    )
    trainer = Trainer(
        student,
        teacher,
        QatOptions(
            amp=options.amp,
            loss=options.loss,
            head_weight=options.head_weight,
            learn_scales=options.learn_scales,
            ema=options.ema,
        ),
        task,
    )
    labels = random_labels(images)
    return lambda: trainer.step(images, 1e-6, labels), trainer.training


def measure(options: argparse.Namespace, sides: tuple[str, ...]) -> dict[str, Timing]:
    """Time these sides in turns."""
    import torch

    device = torch.device(options.device)
    images = torch.rand(options.batch_size, 3, options.imgsz, options.imgsz, device=device)
    actions, contexts = {}, {}
    for name, make in zip(SIDES, (float_training, qat)):
        if name in sides:
            actions[name], contexts[name] = make(options, random_net(options.net, CLASSES), images)
    return take_turns(actions, options.rounds, options.repeats, contexts)


def peak_memory(side: str) -> float:
    """MiB that one side takes alone: this program, run for that side only."""
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--only", side, "--rounds", "1"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])[side])


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=sorted(CONFIGURATIONS), required=True)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--net", required=True, help="configuration file, relative to the checkout")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5, help="steps per turn")
    for flag, kind, default in (
        ("--amp", str, "fp16"),
        ("--loss", str, "normalised"),
        ("--head-weight", float, 0.0),
        ("--ema", float, 0.0),
        ("--task-weight", float, 1.0),
    ):
        parser.add_argument(flag, type=kind, default=default, help="as for quantize")
    parser.add_argument("--learn-scales", action="store_true", help="as for quantize")
    parser.add_argument("--only", choices=SIDES, help="one side alone; prints its peak memory as JSON")
    return parser


def main() -> None:
    """Time both sides and print the ratios."""
    options = build_parser().parse_args()
    start = Path.cwd()
    os.chdir(options.checkout)
    from quantization.upstream.checkout import enter_checkout

    enter_checkout(options.upstream, Path.cwd())
    result = measure(options, (options.only,) if options.only else SIDES)
    if options.only:
        print(json.dumps({options.only: result[options.only].memory_mib}))
        return
    print(
        f"{machine()}, {options.net}, random weights, batch {options.batch_size}, {options.imgsz} px, "
        f"{options.amp if options.device != 'cpu' else 'fp32'}, {options.rounds} rounds of {options.repeats} steps"
    )
    for name in SIDES:
        print(f"{name:15s} {result[name]._replace(memory_mib=0)}")
    print(f"{'time ratio':15s} {result['QAT'].seconds / result['float training'].seconds:.2f}")
    if options.device != "cpu":
        os.chdir(start)
        memory = {name: peak_memory(name) for name in SIDES}
        print(
            f"{'memory':15s} {memory['float training']:.0f} and {memory['QAT']:.0f} MiB, "
            f"ratio {memory['QAT'] / memory['float training']:.2f}"
        )


if __name__ == "__main__":
    main()
