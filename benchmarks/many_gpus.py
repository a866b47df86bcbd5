"""Throughput of calibration and QAT by the processes that it runs in; random weights, random images in memory.

    torchrun --nproc_per_node=4 benchmarks/many_gpus.py --checkout path/to/yolov7 --upstream yolov7 \
        --cfg cfg/training/yolov7.yaml --batch-size 64 --steps 20

Rank 0 prints one line of JSON. ``--batch-size`` is that of all processes together, so figures of different numbers of
processes compare; ``amax`` is a digest of all ranges, bit for bit, which must not depend on their number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Iterator

import bundle  # noqa: F401  # puts quantization on the import path
from random_net import quantized_copy, random_net

from quantization.distributed import RANKS
from quantization.errors import run_main

CLASSES = 80
OBJECTS = 8  # per image
WARM_UP = 3  # steps that are not counted


class Noise:
    """Batches of random images, of which this process has its part; ``labelled`` gives targets too.

    Args:
        options: of the command.
        device: where the images are made.
        count: number of batches.
    """

    def __init__(self, options: argparse.Namespace, device: Any, count: int) -> None:
        self.options, self.device, self.count = options, device, count

    def images(self, number: int) -> Any:
        """A whole batch on the CPU, (B, 3, H, W) uint8, the same wherever it is made."""
        import torch

        shape = (self.options.batch_size, 3, self.options.imgsz // 16, self.options.imgsz // 16)
        coarse = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        return coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)

    def __iter__(self) -> Iterator[Any]:
        """Whole batches, each n-th."""
        for number in range(RANKS.rank, self.count, RANKS.size):
            yield self.images(number).to(self.device).float() / 255

    def labelled(self) -> Iterator[Any]:
        """Of each batch every n-th image, with targets (N, 6)."""
        import torch

        for number in range(self.count):
            images = self.images(number)[RANKS.rank :: RANKS.size].to(self.device).float() / 255
            boxes = torch.rand(self.options.batch_size, OBJECTS, 6, generator=torch.Generator().manual_seed(number))
            boxes = boxes[RANKS.rank :: RANKS.size].contiguous()
            boxes[..., 0] = torch.arange(len(boxes))[:, None]
            boxes[..., 1] = (boxes[..., 1] * CLASSES).floor()
            boxes[..., 4:] = 0.05 + 0.25 * boxes[..., 4:]
            yield images, boxes.reshape(-1, 6).to(self.device)


def clock(device: Any) -> float:
    """Seconds, when all that was asked of the device is done, in all processes."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    RANKS.exchange()
    return time.perf_counter()


def calibration(options: argparse.Namespace, student: Any, device: Any) -> dict[str, Any]:
    """Images per second, and the digest of all ranges."""
    from quantization.calibration.calibrate import calibrate_model
    from quantization.quantizers.switches import amax_tensors

    batches = list(Noise(options, device, options.calib_batches))
    calibrate_model(student, batches[:1], options.calib_method)  # uncounted: libraries are loaded, memory is taken
    start = clock(device)
    calibrate_model(student, batches, options.calib_method)
    seconds = clock(device) - start
    digest = hashlib.sha256()
    for name, amax in sorted(amax_tensors(student).items()):
        digest.update(name.encode() + amax.cpu().numpy().tobytes())
    rate = options.calib_batches * options.batch_size / seconds
    return {"calibration_images_per_s": round(rate, 2), "amax": digest.hexdigest()}


def training(options: argparse.Namespace, student: Any, teacher: Any) -> dict[str, Any]:
    """Steps per second, and the last loss."""
    from quantization.options import QatOptions
    from quantization.qat.losses import TaskLoss
    from quantization.qat.trainer import Trainer
    from quantization.upstream.loss import detection_loss

    device = next(student.parameters()).device
    task = TaskLoss(student.model[-1], detection_loss(options.upstream, student, options.imgsz), options.task_weight)
    trainer = Trainer(student, teacher, QatOptions(amp=options.amp), task if options.task_weight else None)
    batches = list(Noise(options, device, 2).labelled())
    start, losses = 0.0, []
    with trainer.training():
        trainer.agree()
        for number in range(WARM_UP + options.steps):
            if number == WARM_UP:
                start = clock(device)
            losses.append(trainer.step(batches[number % 2][0], 1e-5, batches[number % 2][1]))
        seconds = clock(device) - start
    rate = options.steps / seconds
    return {
        "qat_steps_per_s": round(rate, 3),
        "qat_images_per_s": round(rate * options.batch_size, 2),
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
    }


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--upstream", choices=("yolov5", "yolov7"), required=True)
    parser.add_argument("--cfg", required=True, help="configuration file, relative to the checkout")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--calib-batches", type=int, default=8)
    parser.add_argument("--calib-method", default="sqnr", help="as for quantize")
    parser.add_argument("--amp", default="fp16", help="as for quantize")
    parser.add_argument("--task-weight", type=float, default=1.0, help="as for quantize")
    parser.add_argument("--device", help="cpu; default: a GPU for each process")
    return parser


def measure(options: argparse.Namespace) -> int:
    """Measure both and print."""
    os.chdir(options.checkout)
    from quantization.upstream.checkout import enter_checkout

    enter_checkout(options.upstream, Path.cwd())
    from quantization.data.tensors import pick_device
    from quantization.upstream import model as upstream

    RANKS.start()
    device = pick_device(options.device)
    RANKS.use(device)
    teacher = upstream.fuse(random_net(options.cfg, CLASSES)).to(device).eval()
    student = quantized_copy(teacher).eval()
    result = {"processes": RANKS.size, "device": device.type, **calibration(options, student, device)}
    result.update(training(options, student, teacher))
    if RANKS.main:
        print(json.dumps(result))
    return 0


def main(arguments: Any) -> int:
    """Parse and measure."""
    options = build_parser().parse_args(arguments)
    return RANKS.run(lambda: measure(options))


if __name__ == "__main__":
    run_main(main)
