r"""What evaluation and calibration cost, each against what it should be compared with, as whole commands that take turns.

    python benchmarks/evaluation_speed.py --upstream yolov5 --checkout path/to/yolov5 --weights yolov5n.pt --data data.yaml \
        [--batch-size 32] [--device cpu] [--rounds 3] [--calib-batches 13]

Evaluation: ``test`` against upstream's own val.py or test.py (run by ``python -m quantization.upstream``), same weights,
images, batch size and precision. Calibration: ``quantize`` by SQNR against ``quantize`` by MSE. Printed are seconds, processor
seconds (of all cores, user and system) and the largest resident memory, medians of the rounds, and ratios. Where other
programs use the machine too, the ratio of the processor seconds is the one to look at. Starting Python, importing torch and
checking the data set are counted on both sides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Sequence

SCRIPTS = {"yolov5": "val.py", "yolov7": "test.py"}


class Cost(NamedTuple):
    """What a command took.

    Attributes:
        seconds: from start to end.
        processor: seconds of all cores, its child processes included.
        memory: largest resident memory of the process itself, MiB.
    """

    seconds: float
    processor: float
    memory: float

    def __str__(self) -> str:
        return f"{self.seconds:7.1f} s, processor {self.processor:7.1f} s, {self.memory:6.0f} MiB"


def run(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a folder.

    Raises:
        SystemExit: it failed; its last lines are shown.
    """
    with tempfile.TemporaryFile() as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.WEXITSTATUS(status)
        if status:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read().decode(errors='replace')[-2000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(options: argparse.Namespace, folder: str) -> dict[str, list[str]]:
    """The commands by name; ``folder`` takes what they write."""
    data, weights = str(options.data.resolve()), str(options.weights.resolve())
    batch = ["--batch-size", str(options.batch_size)]
    own = [sys.executable, f"scripts/qat-{options.upstream}.py"]
    common = ["--data", data, *batch, "--imgsz", str(options.imgsz), "--device", options.device]
    theirs = ["--weights", weights, "--data", data, *batch, "--device", options.device, "--project", folder]
    size = "--imgsz" if options.upstream == "yolov5" else "--img-size"
    result = {
        "upstream": [
            *(sys.executable, "-m", "quantization.upstream", SCRIPTS[options.upstream]),
            *(*theirs, size, str(options.imgsz)),
        ],
        "test": [*own, "test", weights, *common],
    }
    for method in ("mse", "sqnr") if options.calib_batches else ():
        written = ["--ptq", f"{folder}/{method}.pt", "--summary", f"{folder}/{method}.json"]
        result[method] = [*own, "quantize", weights, *common, *written, "--calib-method", method, "--restart"]
        result[method] += ["--calib-batches", str(options.calib_batches)]
    return result


def main() -> None:
    """Run the commands in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=sorted(SCRIPTS), required=True)
    parser.add_argument("--checkout", type=Path, required=True, help="with the bundle copied in")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calib-batches", type=int, default=0, help="0: evaluation alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(options, folder)
        costs: dict[str, list[Cost]] = {name: [] for name in todo}
        for _ in range(options.rounds):
            for name, command in todo.items():
                costs[name].append(run(command, options.checkout))
    medians = {name: Cost(*map(statistics.median, zip(*part))) for name, part in costs.items()}
    for name, cost in medians.items():
        print(f"{name:8} {cost}")
    for name, other in (("test", "upstream"), ("sqnr", "mse")):
        if name in medians:
            ratios = [one / two for one, two in zip(medians[name], medians[other])]
            print("{} / {}: seconds {:.2f}, processor {:.2f}, memory {:.2f}".format(name, other, *ratios))


if __name__ == "__main__":
    main()
