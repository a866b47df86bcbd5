"""Run ``quantize`` on many data sets in one process: ``python quantize_cases.py UPSTREAM JOBS.json RESULTS.json``.

JOBS: objects with the "arguments" of a command, the folder "out" that it writes into, and "whole", whether the run is
to go on behind the check of its input. RESULTS: as those of ``evaluate_cases.py``, with the "files" in "out".
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [".", str(Path(__file__).resolve().parents[1])]

from quantization.cli import commands
from quantization.cli.quantization import Quantization
from quantization.closing import Closing
from quantization.upstream import checkout, checkpoint
from support.evaluate_cases import run_job

LOG = logging.getLogger("quantization")
run_whole, original_load = Quantization.run, checkpoint.load
after_whole = commands.after_quantize


def only_checked(run: Quantization) -> None:
    """Stands in for ``Quantization.run``: the input was accepted."""
    LOG.info("accepted: %d training, %d validation images", len(run.dataset.train), len(run.dataset.val))


@functools.lru_cache(maxsize=None)
def load_once(*arguments: Any) -> Any:
    """What ``checkpoint.load`` gave for these arguments; all jobs have one checkpoint."""
    return original_load(*arguments)


def run_case(upstream: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one job."""
    setattr(Quantization, "run", run_whole if job["whole"] else only_checked)
    # without a run there is no summary to end with
    setattr(commands, "after_quantize", after_whole if job["whole"] else lambda *_: Closing())
    return {**run_job(upstream, job["arguments"]), "files": sorted(os.listdir(job["out"]))}


if __name__ == "__main__":
    checkout.enter_checkout(sys.argv[1], Path.cwd())  # its operators can be registered once in a process
    checkout.enter_checkout = lambda *_: None  # type: ignore[assignment]
    checkpoint.load = lambda *arguments: copy.deepcopy(load_once(*arguments))
    jobs = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    results = [run_case(sys.argv[1], job) for job in jobs]
    Path(sys.argv[3]).write_text(json.dumps(results), encoding="utf-8")
