"""Matching beside the program: processes that start while the network runs, so that they are there when it is done. No torch.

    with MatchProcesses(images) as processes:
        ...  # find the detections
        pairs = processes.match(parts)

pycocotools matches detections one by one in Python, where threads take turns. A process here is a new Python that reads
parts from its standard input and writes their pairs to its standard output: a copy of this process (fork) would hang where
CUDA or OpenCV have threads, and it ends with this one, whatever ends this one, because its input ends. Small data sets, and
machines with few cores, have none: then ``match`` works here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Sequence

from quantization.evaluation.matching import ImagePart, Pairs, match_part

LOG = logging.getLogger("quantization")
LEAST_IMAGES = 500  # below, matching takes less than about a second
CORES_EACH = 3  # of this machine for each process
MOST = 6  # processes: twelve would save half a second with 2,000 images of COCO
# without "", the current folder, which ``-c`` puts first: it may hold another copy of the bundle
START = "import sys; sys.path[:] = filter(None, sys.path); from quantization.evaluation.match_processes import serve; serve()"


class MatchProcesses:
    """Processes that match detections, as long as this context is open.

    Args:
        images: how many there are to match.
        shares: programs that share the machine's cores.
    """

    def __init__(self, images: int, shares: int = 1) -> None:
        self._count = _process_count(images, shares)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> MatchProcesses:
        # not PYTHONPATH alone: scripts and tests put folders into sys.path
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        pipe = subprocess.PIPE
        try:
            for _ in range(self._count):
                self._processes.append(
                    # a session of its own: Ctrl-C in a terminal is for this program alone
                    subprocess.Popen(
                        [sys.executable, "-c", START], stdin=pipe, stdout=pipe, env=environment, start_new_session=True
                    )
                )
        except OSError as error:
            LOG.warning("WARNING: no process for the evaluation could be started (%s): it takes longer", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what it did not read any more
                    assert pipe is not None
                    pipe.close()
        self._processes = []

    def match(self, parts: Sequence[ImagePart]) -> list[Pairs]:
        """What ``match_part`` gives for each."""
        if not self._processes:
            return [match_part(part) for part in parts]
        idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()  # None: one that has ended
        for process in self._processes:
            idle.put(process)

        def matched(part: ImagePart) -> Pairs:
            process = idle.get()
            try:
                return match_part(part) if process is None else _asked(process, part)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                LOG.warning("WARNING: a process for the evaluation has ended (%r): it takes longer", error)
                process = None
                return match_part(part)
            finally:
                idle.put(process)

        with ThreadPoolExecutor(len(self._processes)) as pool:
            return list(pool.map(matched, parts))


def _process_count(images: int, shares: int) -> int:
    """How many processes are worth their start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(MOST, cores // shares // CORES_EACH)
    return count if count > 1 and images >= LEAST_IMAGES else 0


def _asked(process: subprocess.Popen[bytes], part: ImagePart) -> Pairs:
    """A part matched by a process."""
    assert process.stdin is not None and process.stdout is not None
    pickle.dump(part, process.stdin, pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()
    pairs: Pairs = pickle.load(process.stdout)
    return pairs


def serve() -> None:
    """Such a process: parts from standard input, their pairs to standard output, until the input ends."""
    import pycocotools.cocoeval  # noqa: F401  # before the first part comes

    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever is printed is no answer
    with contextlib.suppress(EOFError, BrokenPipeError):  # the program has ended
        while True:
            pickle.dump(match_part(pickle.load(source)), target, pickle.HIGHEST_PROTOCOL)
            target.flush()
