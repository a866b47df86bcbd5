"""Kill ``quantize`` at random moments, resume it, and compare the end with an uninterrupted run's, bit for bit.

    python benchmarks/kills.py --kills 200

SIGKILL, SIGTERM and SIGINT take turns. The runs are forked from a process that has imported everything; a tiny yolov5 and
drawn images make a run take seconds. What must hold after each run: the same weights and figures, no file but the
results, at most one epoch of QAT done again, exit code 143 or 130 where the signal can be caught.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PER_RUN = 10  # kills; a run then goes on to its end, however slow the machine is
SIGNALS = {"SIGKILL": (9, -9), "SIGTERM": (15, 143), "SIGINT": (2, 130)}  # number, exit code


def worker(data: Path, folder: Path, kills: int, minutes: float) -> None:
    """All kills, in a checkout; prints the table. Kept long: one loop and the counts that it keeps."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from kill_lab import Lab, differences, wait

    lab = Lab(folder, data, epochs=2, steps=4, more=("--ema", "0.9"))
    reference = lab.reference()
    begun = time.monotonic()
    lab.run("timed")
    length, chance = time.monotonic() - begun, random.Random(0)
    stages: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    most, number, sent = 0, 0, 0
    while sent < kills and time.monotonic() - begun < 60 * minutes:
        number += 1
        run, more, last = f"run{number}", ["--resume"], min(sent + PER_RUN, kills)
        while True:
            log = folder / f"{run}.log"
            before = log.stat().st_size if log.exists() else 0
            child = lab.start(run, more)
            code = wait(child, chance.uniform(0, length)) if sent < last else wait(child, 600)
            if code is None:
                name = list(SIGNALS)[sent % len(SIGNALS)]
                code = lab.kill(child, SIGNALS[name][0])
                text = log.read_bytes()[before:].decode(errors="replace")
                sent += 1
                stages[stage_of(text)] += 1
                counts[name] += 1
                counts["unexpected exit codes"] += code not in (SIGNALS[name][1], 0)
                counts["ended by themselves meanwhile"] += code == 0
                if code not in (SIGNALS[name][1], 0) or "Traceback" in text:
                    print(f"{name}: exit code {code}: {text[-4000:]}", file=sys.stderr)
                counts["caught signals without a line that names it"] += code > 0 and "stopped by " + name not in text
                counts["tracebacks"] += "Traceback" in text
                if code:
                    continue
            if code:
                print(log.read_text()[-3000:], file=sys.stderr)
                raise SystemExit(f"{run} ended with exit code {code}")
            break
        counts["runs"] += 1
        counts["results that differ"] += bool(differences(reference, lab.result(run)))
        counts["runs with files left"] += bool(lab.left(run))
        most = max(most, lab.redone(run))
        lab.discard(run)
        print(f"{sent} kills, {counts['runs']} runs, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(f"\n| of {sent} kills, {counts['runs']} runs of {lab.epochs} x {lab.steps} steps | |\n|---|---:|")
    for name in SIGNALS:
        print(f"| {name} | {counts[name]} |")
    for name, count in stages.most_common():
        print(f"| {name} | {count} |")
    print(f"| runs that ended before the signal came | {counts['ended by themselves meanwhile']} |")
    for name in (
        "unexpected exit codes",
        "caught signals without a line that names it",
        "tracebacks",
        "results that differ",
        "runs with files left",
    ):
        print(f"| **{name}** | **{counts[name]}** |")
    print(f"| **most steps done again in one attempt** | **{most}** of {lab.steps} per epoch |")


MARKS = {
    "Fusing layers": "before PTQ, or while it was resumed",
    "Evaluate float": "in the evaluation of the float model",
    "float: mAP": "in PTQ",
    "PTQ checkpoint": "after PTQ",
    "QAT 1/": "in a step of QAT",
    "QAT 2/": "in a step of QAT",
    "Evaluate QAT": "in the evaluation of an epoch",
    "QAT epoch": "in writing an epoch's files",
    "QAT checkpoint": "at the end",
}


def stage_of(log: str) -> str:
    """Where an attempt was when it ended, by the last mark in its log."""
    log = log.replace("Evaluate QAT epoch", "Evaluate QAT")
    last = max(MARKS, key=log.rfind)
    return MARKS[last] if last in log else "before the weight was loaded"


def main() -> None:
    """Make a checkout and data, and kill in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30, help="begin no run after so long")
    parser.add_argument("--worker", nargs=2, type=Path, metavar=("DATA", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        data, runs = options.worker
        worker(data, runs, options.kills, options.minutes)
        return
    from checkouts import install_bundle, make_checkout
    from shapes import draw_dataset

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkout = make_checkout("yolov5", folder / "yolov5")
        install_bundle(checkout)
        draw_dataset(folder / "shapes", train=24, val=8, size=96, classes=3, objects=3, difficulty=0.1)
        (folder / "runs").mkdir()
        command = [sys.executable, str(Path(__file__).resolve()), "--kills", str(options.kills)]
        command += ["--minutes", str(options.minutes), "--worker", str(folder / "shapes"), str(folder / "runs")]
        subprocess.run(command, cwd=str(checkout), check=True)


if __name__ == "__main__":
    main()
