"""Jobs of benchmarks/accuracy.py: commands with outputs, skipped where done, several jobs side by side.

A job's results folder holds ``steps.json`` (which command made each output, how long it took) and, where a command
failed, ``failed.json``. A step is done if the same command has already made its output: a second call of the benchmark
continues where the first one stopped, and a changed option repeats what depends on it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from bundle import BUNDLE
from job_order import JobOrder

from quantization.errors import UserError
from quantization.files import atomic_write

ORDER = ("quantize", "torch", "square", "export", "onnxruntime", "tensorrt")  # of a job's steps
MAKERS = ("quantize", "export")  # all later steps depend on these; the others are evaluations


class StepFailed(Exception):
    """A command failed; the message is the last line that it printed."""


class Step(NamedTuple):
    """One command."""

    name: str  # one of ORDER
    words: list[str]
    output: Path


class Job(NamedTuple):
    """Steps in order, for one model, seed and way of quantizing."""

    name: str  # for people: yolov5s-0/mse
    folder: Path  # results: small files that are worth keeping
    log: Path  # what the commands print
    cwd: Path
    steps: list[Step]
    prepare: Callable[[], None] | None = None  # called before the first command


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is complete or absent."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def read_json(path: Path, default: Any) -> Any:
    """Content of a JSON file; ``default`` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def last_line(text: str) -> str:
    """The last line with anything in it; progress bars rewrite theirs with carriage returns."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1] if lines else "(no output)"


class Workshop:
    """Runs commands and jobs in a work folder that no other call uses meanwhile.

    Args:
        work: the folder; made if it is missing.
        jobs: how many jobs run side by side.
        threads: OMP_NUM_THREADS of each, unless the environment says so already.

    Raises:
        UserError: another call, or a command that outlived one, still works in the folder.
    """

    def __init__(self, work: Path, jobs: int, threads: int) -> None:
        self.work, self.jobs, self.stopped = work.resolve(), jobs, False
        self.running: list[subprocess.Popen[bytes]] = []
        work.mkdir(parents=True, exist_ok=True)
        # every command inherits the descriptor: the lock lasts until the last of them has ended
        self.lock = os.open(str(work / "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.lock)
            raise UserError(
                f"{work} is in use by another call, or by a command that outlived one: wait for it, or end it"
            ) from error
        self.environment = {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "YOLOv5_AUTOINSTALL": "false",
            "WANDB_MODE": "disabled",
        }

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.lock)
        if self.stopped:  # a shell that was ended is gone before the commands that it started
            with open(self.work / "lock", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)

    def stop(self) -> None:
        """End the running commands, and start no others."""
        self.stopped = True
        for process in list(self.running):
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:  # it has just ended
                pass

    def command(self, words: Sequence[str], cwd: Path, log: Path) -> float:
        """Run one command, its output appended to ``log``.

        Returns:
            Seconds.

        Raises:
            StepFailed: its exit code is not 0, or the benchmark is being stopped.
        """
        if self.stopped:
            raise StepFailed("stopped")
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.time()
        with open(log, "ab") as output:
            output.write(f"\n$ {' '.join(words)}\n".encode())
            output.flush()
            begin = output.tell()
            process = subprocess.Popen(
                words,
                cwd=str(cwd),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self.lock,),
                start_new_session=True,
            )  # stop() then ends its children too
            self.running.append(process)
            if self.stopped:  # stop() came before this process was in the list
                self.stop()
            code = process.wait()
            self.running.remove(process)
        if code:
            with open(log, "rb") as printed:
                printed.seek(begin)
                line = last_line(printed.read().decode(errors="replace"))
            raise StepFailed("stopped" if self.stopped else f"exit code {code}: {line}")
        return time.time() - start

    def plain(self, words: Sequence[str]) -> list[str]:
        """A command without this machine's paths: it did the same wherever the folders are."""
        places = ((str(self.work), "WORK"), (str(BUNDLE), "."), (sys.executable, "python"))
        return [functools.reduce(lambda text, place: text.replace(*place), places, word) for word in words]

    def steps_to_run(self, job: Job, wanted: set[str]) -> list[Step]:
        """The steps that are missing for the ``wanted`` outputs, and those that depend on one that is run again."""
        record = read_json(job.folder / "steps.json", {})
        last = max((number for number, step in enumerate(job.steps) if step.name in wanted), default=-1)
        first = last + 1
        for number in range(last, -1, -1):
            step = job.steps[number]
            changed = record.get(step.name, {}).get("command") != self.plain(step.words)
            needed = step.name in wanted or (step.name in MAKERS and first <= last)
            if (needed and not step.output.is_file()) or (changed and (needed or step.name in MAKERS)):
                first = number
        return [step for step in job.steps[first : last + 1] if step.name in wanted or step.name in MAKERS]

    def run_job(self, job: Job, wanted: set[str]) -> None:
        """Run what is missing of a job.

        Raises:
            StepFailed: a command failed; ``failed.json`` says which one.
        """
        steps = self.steps_to_run(job, wanted)
        if not steps:
            return
        file, failed = job.folder / "steps.json", job.folder / "failed.json"
        if failed.is_file():
            failed.unlink()
        step = steps[0]
        try:
            if job.prepare is not None:
                job.prepare()
            for step in steps:
                record: dict[str, Any] = {
                    name: content
                    for name, content in read_json(file, {}).items()
                    if ORDER.index(name) < ORDER.index(step.name)
                }
                write_json(file, record)  # before the command: its old output counts no more
                stale = job.steps[job.steps.index(step) :] if step.name in MAKERS else [step]
                for output in [other.output for other in stale if other.output.is_file()]:
                    output.unlink()
                step.output.parent.mkdir(parents=True, exist_ok=True)
                seconds = self.command(step.words, job.cwd, job.log)
                if not step.output.is_file():
                    raise StepFailed(f"exit code 0, but {step.output.name} was not written")
                record[step.name] = {"command": self.plain(step.words), "seconds": round(seconds, 1)}
                write_json(file, record)
                print(f"{time.strftime('%H:%M:%S')} {job.name}: {step.name}, {seconds:.0f} s", flush=True)
        except StepFailed as error:
            if not self.stopped:
                write_json(failed, {"step": step.name, "message": self.plain([str(error)])[0]})
            raise

    def side_by_side(self, work: Mapping[str, Callable[[], None]], after: Mapping[str, str] | None = None) -> list[str]:
        """Run callables in their order, some at a time; those that fail do not stop the others.

        Args:
            work: by name.
            after: names of work to other names of it, which have to be done first; where that fails, it is left out.

        Returns:
            Names of those that failed.
        """
        failed: list[str] = []
        order = JobOrder(work, after or {})

        def attempt(name: str) -> bool:
            try:
                work[name]()
            except StepFailed as error:
                failed.append(name)
                if not self.stopped:
                    print(f"{time.strftime('%H:%M:%S')} {name} failed: {error}", file=sys.stderr, flush=True)
                return False
            return True

        def interrupt(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends two
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                try:
                    for future in as_completed([pool.submit(order.work_off, attempt) for _ in range(self.jobs)]):
                        future.result()
                except BaseException:
                    self.stop()
                    raise
        finally:
            signal.signal(signal.SIGTERM, before)
        return failed
