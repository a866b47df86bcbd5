"""Calibration and training of a small net by one, two and three processes, and processes that fail.

Prints a JSON object on the last line. One process has imported torch and forks those that ``torchrun`` would start.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import cv2
import numpy as np
import torch
from torch import nn

from quantization.calibration import gradient_ranges
from quantization.calibration.calibrate import calibrate_model
from quantization.data.substitutes import Substitutes
from quantization.distributed import RANKS
from quantization.errors import UserError, log_to_stdout, run_main
from quantization.options import QatOptions
from quantization.qat.losses import TaskLoss
from quantization.qat.trainer import Trainer, finetune
from quantization.quantizers import backend
from quantization.quantizers.modules import QuantConv2d
from quantization.quantizers.switches import amax_tensors
from quantization.signals import SIGNALS

METHODS = ("sqnr", "entropy", "max")
BATCHES, BATCH, SIDE = 7, 3, 24
TRAINING = (4, 3, 1)  # images per batch: uneven parts, and fewer images than processes


class Net(nn.Module):
    """Three convolutions, one of which reads a tensor that another reads too, and a head of two maps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(3 if not i else 8, 8, 3, padding=1), nn.SiLU()) for i in range(3)]
        self.model = nn.Sequential(*layers, nn.Identity())
        self.stride = torch.tensor([1.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 8, H, W)."""
        result: torch.Tensor = self.model(x)
        return result


def images(count: int, seed: int) -> torch.Tensor:
    """Random images whose values grow with the seed, so that ranges double in the middle."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIDE, SIDE, generator=generator) * (1 + seed)


def quantized() -> nn.Module:
    """The net with quantizers without ranges; two share one."""
    model = Net().eval()
    backend.select_backend("native")
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = QuantConv2d
            module.add_quantizers()  # type: ignore[operator]  # it is a QuantConv2d now
    convolutions: Any = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    convolutions[2]._input_quantizer = convolutions[1]._input_quantizer
    return model


class Training:
    """Batches of uneven size, of which each process has its images."""

    def __iter__(self) -> Iterator[Any]:
        for number, count in enumerate(TRAINING):
            yield images(count, number)[RANKS.rank :: RANKS.size], torch.zeros(0, 6)


def calibrated_and_trained(method: str) -> dict[str, Any]:
    """Every range, and the weights after three steps of QAT."""
    model = quantized()
    sizes = [BATCH] * (BATCHES - 1) + [1]  # the last batch is smaller
    batches = [images(size, number) for number, size in enumerate(sizes)][RANKS.rank :: RANKS.size]
    calibrate_model(model, batches, method)
    amax = {name: tensor.flatten().tolist() for name, tensor in amax_tensors(model).items()}
    options = QatOptions(epochs=1, iters=len(TRAINING), lr=1e-4, learn_scales=True, ema=0.9)
    head: Any = model.model
    task = TaskLoss(head[-1], lambda maps, targets: maps[0].square().mean(), 0.1)
    losses: list[float] = []
    finetune(Trainer(model, Net(), options, task), Training(), lambda epoch, loss, lr: losses.append(loss))
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
    before = {name: value.flatten().tolist() for name, value in Net().state_dict().items()}
    return {"amax": amax, "weights": weights, "before": before, "loss": losses[0]}


def work(file: str) -> int:
    """What each process does."""
    RANKS.start()
    RANKS.use(torch.device("cpu"))
    gradient_ranges.IMAGES = 16  # not a whole number of batches
    result = {method: calibrated_and_trained(method) for method in METHODS}
    if RANKS.main:
        Path(file).write_text(json.dumps(result), encoding="utf-8")
    return 0


def fails(kind: str) -> int:
    """Rank 1 fails while the others wait for it, or go on to another meeting."""
    RANKS.start()
    with SIGNALS.deferred():
        RANKS.exchange()
        RANKS.total(torch.ones(1))
    if RANKS.rank == 1:
        if kind == "error":
            raise UserError("image 7 is damaged")
        if kind == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    RANKS.to_main("what takes no failure")
    RANKS.main_only(lambda: "neither does this")
    return 0


def shares(folder: str) -> int:
    """Each process meets an image that has gone, then four more; rank 0 writes what all know after the first."""
    RANKS.start()
    log_to_stdout()
    logging.getLogger("quantization").handlers = [logging.FileHandler(Path(folder, f"log{RANKS.rank}"))]
    there = str(Path(folder, "there.png"))
    gone = [str(Path(folder, f"{number:02}.png")) for number in range(15)]
    substitutes = Substitutes([file for pair in zip(gone, [there] * len(gone)) for file in pair])
    for number in range(5):
        substitutes.read(gone[5 * RANKS.rank + number], (8, 8))
        if number == 0:
            substitutes.share()
            Path(folder, f"failed{RANKS.rank}").write_text(json.dumps(substitutes.failed))
    substitutes.share()
    return 0


def forked(count: int, action: Callable[[str], int], argument: str) -> list[Any]:
    """Run an action in so many processes, as torchrun would; their exit codes, and what they wrote to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children, outputs = [], [tempfile.TemporaryFile() for _ in range(count)]
    for rank in range(count):
        child = os.fork()
        if not child:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(count),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            os.dup2(outputs[rank].fileno(), 2)
            RANKS.__init__()  # type: ignore[misc]  # reads the environment again
            code: Any = 1
            try:
                run_main(lambda arguments: RANKS.run(lambda: action(argument)))
            except SystemExit as end:
                code = end.code
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    codes = []
    for child in children:
        status = os.waitpid(child, 0)[1]
        codes.append(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status))
    errors = []
    for output in outputs:
        output.seek(0)
        errors.append(output.read().decode())
    return [codes, errors]


def main() -> None:
    """Run all cases."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results, ends = {}, {}
        for count in (1, 2, 3):
            file = Path(folder, str(count))
            ends[str(count)] = forked(count, work, str(file))
            results[count] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        failures = {kind: forked(3, fails, kind) for kind in ("error", "signal", "killed")}
        cv2.imwrite(str(Path(folder, "there.png")), np.zeros((8, 8, 3), np.uint8))
        images_gone = {"folder": folder, "end": forked(3, shares, folder)}
        for name in ("failed", "log"):
            images_gone[name] = [Path(folder, f"{name}{rank}").read_text() for rank in range(3)]
    print(json.dumps({"results": results, "ends": ends, "failures": failures, "images": images_gone}))


if __name__ == "__main__":
    main()
