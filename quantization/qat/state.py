"""The state of a run that is not finished: one file beside its summary, from which ``--resume`` goes on.

Its facts are plain values: run, stage, options, inputs, summary, record of the checkpoint, QAT's progress and history.
Its tensors are the float model's, the quantizers' ranges, QAT's weights and optimizer, the random number generators', and
the samples of the figures that later ones are compared with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, Mapping

import numpy as np
import torch

from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.evaluation.bootstrap import Samples
from quantization.files import atomic_write
from quantization.signals import SIGNALS
from quantization.upstream.checkpoint import write_pt
from quantization.upstream.safe_load import load_checkpoint

LOG = logging.getLogger("quantization")
FORMAT = 2
STAGES = ("started", "ptq", "qat")  # what is done: nothing; the PTQ checkpoint; at least a step of QAT


class RunState:
    """What is kept of a run; written atomically, so that the file is that of some moment, whenever the process ends.

    Args:
        file: the .pt to write.
        minutes: between writes that ``due`` asks for.
        facts: plain values, as JSON holds them.
        tensors: tensors in lists and dictionaries.
    """

    def __init__(
        self,
        file: str,
        minutes: float,
        facts: dict[str, Any],
        tensors: dict[str, Any] | None = None,
    ) -> None:
        self.file, self.facts = file, facts
        self.tensors: dict[str, Any] = tensors or {}
        self._seconds, self._written = 60 * minutes, time.monotonic()
        self._failed = False

    @property
    def stage(self) -> str:
        """One of ``STAGES``."""
        return str(self.facts["stage"])

    @property
    def due(self) -> bool:
        """Whether to write now: a signal asks the process to end, or the last write was long ago."""
        return SIGNALS.requested or time.monotonic() - self._written >= self._seconds

    def keep(self, facts: dict[str, Any], tensors: dict[str, Any] | None = None) -> None:
        """Write the state with these entries changed.

        A state that cannot be written costs a warning: the one before stays, and the run goes on.
        """
        self.facts.update(facts)
        self.tensors.update(tensors or {})
        self._written = time.monotonic()
        if not RANKS.main:
            return
        content = {
            "format": FORMAT,
            "facts": json.dumps(self.facts),
            "tensors": {**self.tensors, "random": generators()},
        }
        try:
            write_pt(self.file, content)
            self._failed = False
        except UserError as error:
            if not self._failed:
                LOG.warning("%s; the run goes on, but --resume would start at its last state", error)
            self._failed = True

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Context in which a result takes the file's room on a full disk; if the block fails, the file comes back."""
        file = Path(self.file)
        content = file.read_bytes() if file.is_file() else b""
        with contextlib.suppress(OSError):  # it stays, where nothing can be written
            file.unlink()
        try:
            yield
        except BaseException:
            if content and not file.exists():
                try:
                    with atomic_write(file) as temporary:
                        Path(temporary).write_bytes(content)
                except UserError as error:
                    LOG.warning("%s; --resume would start anew", error)
            raise

    def remove(self) -> None:
        """The run is finished: its files stand for it. A state that stays is told from an unfinished run's (cli/resume)."""
        if not RANKS.main:
            return
        try:
            Path(self.file).unlink(missing_ok=True)
        except OSError as error:
            LOG.warning("%s cannot be removed (%s): it is of no use any more", self.file, error.strerror)


def read_state(file: str, minutes: float = 10.0) -> RunState | None:
    """The state in a file; None: there is none.

    Args:
        file: written by ``RunState.keep``. Nothing in it can run code (upstream.safe_load).
        minutes: see ``RunState``.

    Raises:
        UserError: the file is damaged, or of another version.
    """
    if not Path(file).is_file():
        return None
    try:
        content = load_checkpoint(Path(file))
        if content["format"] != FORMAT:
            raise UserError(f"{file} is of another version of quant-tools: give --restart to discard it")
        facts, tensors = json.loads(content["facts"]), content["tensors"]
        if facts["stage"] not in STAGES or not isinstance(tensors, dict):
            raise KeyError("stage")
    except UserError:
        raise
    except Exception as error:  # the unpickler raises whatever a damaged file makes it meet
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise UserError(f"{file} is not the state of a run ({reason}): give --restart to discard it") from error
    return RunState(file, minutes, facts, tensors)


def generators() -> dict[str, Any]:
    """States of the random number generators of torch, CUDA, numpy and Python."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": list(random.getstate()),
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Set the generators to what ``generators`` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, gauss_next = state["python"]
    random.setstate((version, tuple(numbers), gauss_next))


def references_content(references: Mapping[str, Samples]) -> dict[str, Any]:
    """What networks are compared with, as an entry of a state's tensors."""
    return {
        "references": {
            name: {part: torch.from_numpy(values) for part, values in asdict(samples).items()}
            for name, samples in references.items()
        }
    }


def references_of(tensors: Mapping[str, Any]) -> dict[str, Samples]:
    """From the tensors of a state that ``references_content`` is in; none where it is not."""
    return {
        name: Samples(**{part: values.numpy() for part, values in parts.items()})
        for name, parts in tensors.get("references", {}).items()
    }
