"""Files of a quantize run: who may write them, what an earlier run left, and where this one starts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import uuid
from pathlib import Path
from typing import Any, Iterator

import torch

from quantization.cli.options import DeployCommand, QuantizeCommand
from quantization.data.dataset import Dataset
from quantization.distributed import RANKS
from quantization.errors import UserError
from quantization.files import check_named_files, sweep
from quantization.locks import OutputLocks
from quantization.option_fields import make, record
from quantization.qat.run import picture_file
from quantization.qat.state import RunState, read_state
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord, read_record

LOG = logging.getLogger("quantization")
# they may differ in a resumed run: none changes its result (of --device, the type may not differ)
FREE = frozenset({"weight", "summary", "device", "workers", "save_every", "resume", "restart"})
CHUNK = 1 << 20  # bytes


def state_file(summary: str) -> str:
    """Where the state of an unfinished run lies: beside its summary."""
    return str(Path(summary).with_suffix(".state.pt"))


@contextlib.contextmanager
def own_files(options: QuantizeCommand) -> Iterator[None]:
    """Context in which this process alone writes a run's files; what dead runs left half written is swept.

    Raises:
        UserError: an output cannot be written, is another output or the input, or another process writes it.
    """
    if not RANKS.main:  # rank 0 writes
        yield
        return
    state = state_file(options.summary)
    picture = picture_file(options.summary) if options.qat else None
    named = [("--ptq", options.ptq), ("--qat", options.qat), ("--summary", options.summary)]
    check_named_files([options.weight], [*named, ("--summary", picture), ("--summary", state)])
    with OutputLocks(file for _, file in named if file is not None):
        for file in (*(file for _, file in named), picture, state):
            for found in sweep(file) if file is not None else ():
                LOG.debug("removed %s, which an earlier run left", found)
        yield


def resumed_options(values: dict[str, Any]) -> QuantizeCommand:
    """Options of the run that ``--resume`` goes on with: those it was started with.

    Args:
        values: what the command line and ``--config`` give, by name.

    Raises:
        UserError: one of them is not what the run was started with.
    """
    summary = values.get("summary", QuantizeCommand.summary)
    found = read_state(state_file(summary))
    recorded = found.facts["options"] if found is not None else (_finished(summary) or {}).get("options")
    if recorded is None:
        if not {"cocodir", "data"} & set(values):
            raise UserError(
                f"--resume: there is no run at {summary}: name its --summary, or start one with all options"
            )
        return make(QuantizeCommand, values)
    refuse_changes(values, recorded, summary)
    return make(QuantizeCommand, {**recorded, **values})


def refuse_changes(values: dict[str, Any], recorded: dict[str, Any], place: str) -> None:
    """Check that what is given again is what a run was started with.

    Args:
        values: options that are given, by name.
        recorded: options of the run.
        place: where it is, for the message.

    Raises:
        UserError: one of them is not; those in ``FREE`` may differ.
    """
    for name, value in values.items():
        plain = list(value) if isinstance(value, (list, tuple)) else value
        if name not in FREE and recorded.get(name) != plain:
            raise UserError(
                f"--resume: the run at {place} was started with {name.replace('_', '-')} {recorded.get(name)}, not "
                f"{plain}: leave that option out, or start anew with --restart"
            )


def _finished(summary: str) -> dict[str, Any] | None:
    """The summary of a finished run; None: there is none."""
    try:
        content = json.loads(Path(summary).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no summary, or none of ours
        return None
    return content if isinstance(content, dict) and content.get("stage") == "finished" else None


def is_done(options: QuantizeCommand) -> bool:
    """Whether ``--resume`` was asked of a run that is finished; says so, and where its files are.

    Raises:
        UserError: it is, but a file of it is missing.
    """
    if not options.resume or Path(state_file(options.summary)).exists():
        return False
    done = _finished(options.summary)
    if done is None:
        return False
    files = [file for file in (options.ptq, options.qat, options.summary) if file is not None]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise UserError(f"run {done.get('run')} is finished, but {missing[0]} is gone: start anew with --restart")
    LOG.info("Run %s is finished: %s", done.get("run"), ", ".join(files))
    return True


def inputs_of(weight: str, dataset: Dataset, device: torch.device, versions: dict[str, str]) -> dict[str, str]:
    """What a run's result depends on beside its options, by a name for messages."""
    digest = hashlib.sha256()
    with open(weight, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    listing = hashlib.sha256()
    files = [Path(file) for file in (*dataset.train, *dataset.val)]
    for path in files if dataset.annotations is None else (*files, dataset.annotations):
        listing.update(f"{path} {path.stat().st_size if path.is_file() else -1}\n".encode())
    found = {"weight file": digest.hexdigest(), "data set": listing.hexdigest(), "device": device.type}
    return {**found, **{f"version of {name}": version for name, version in versions.items()}}


def begin(options: QuantizeCommand, inputs: dict[str, str]) -> RunState:
    """The state that the run starts from: an earlier one's with ``--resume``, else that of a new run.

    Raises:
        UserError: there is an unfinished run, and it is not said what to do with it; or it had other inputs.
    """
    file = state_file(options.summary)
    found = None if options.restart else read_state(file, options.save_every)
    done = _finished(options.summary)
    if found is not None and done is not None and done.get("run") == found.facts["run"] and not options.resume:
        found = None  # killed between its summary and the removal of its state
    if found is not None and options.resume:
        for name, value in found.facts["inputs"].items():
            if inputs.get(name) != value:
                raise UserError(
                    f"--resume: {name} is not that of the run in {file} ({value} then, {inputs.get(name)} now): "
                    "start anew with --restart"
                )
        LOG.info("Run %s goes on: %s", found.facts["run"], describe(found))
        return found
    if found is not None and found.stage != "started":
        raise UserError(
            f"{file} holds the unfinished run {found.facts['run']} ({describe(found)}): go on with --resume, or discard it "
            "with --restart"
        )
    if options.resume:
        LOG.info("There is no state in %s: a new run begins", file)
    facts = {"run": uuid.uuid4().hex, "stage": "started", "options": plain_record(options), "inputs": inputs}
    return RunState(file, options.save_every, facts)


def plain_record(options: QuantizeCommand | DeployCommand) -> dict[str, Any]:
    """Options as a run keeps them: in JSON's types, and without what asks for this or another start."""
    content = {**record(options), "resume": False, "restart": False}
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def describe(state: RunState) -> str:
    """How far a run is."""
    if state.stage == "started":
        return "nothing finished yet"
    if state.stage == "ptq":
        return "PTQ is done"
    progress, options = state.facts["qat"]["progress"], state.facts["options"]
    return f"QAT, {progress['epoch']} of {options['epochs']} epochs and {progress['step']} of {options['iters']} steps"


def resume_hint(name: str, options: QuantizeCommand) -> str:
    """End of a message: the command that goes on."""
    words = ["quantize", options.weight, "--resume", "--summary", options.summary]
    return f"; go on with: python scripts/qat-{name}.py {' '.join(map(shlex.quote, words))}"


def own_checkpoints(
    options: QuantizeCommand, state: RunState, name: str
) -> tuple[torch.nn.Module, CheckpointRecord] | None:
    """Check that what a resumed run has written is its own; the best epoch of its QAT so far, on the CPU.

    Raises:
        UserError: a checkpoint is missing, or another run's.
    """
    if state.stage == "started":
        return None
    if Path(options.ptq).exists() or options.max_drop is not None:  # else it is written again
        _own_checkpoint(options.ptq, state, name)
    if options.qat is None or state.facts.get("qat", {}).get("best") is None:
        return None
    return _own_checkpoint(options.qat, state, name)


def _own_checkpoint(file: str, state: RunState, name: str) -> tuple[torch.nn.Module, CheckpointRecord]:
    model, found = None, None
    if Path(file).is_file():
        model, content = checkpoint.load(file, torch.device("cpu"), name)
        found = read_record(content, file)
    if model is None or found is None or found.run != state.facts["run"]:
        raise UserError(
            f"--resume: {file} of run {state.facts['run']} is missing, or another run's: put it back, or start anew with "
            "--restart"
        )
    return model, found
