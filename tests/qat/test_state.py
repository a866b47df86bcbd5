"""Training that is interrupted at any step and continued ends with the same bits, and keeps the same epoch."""

from __future__ import annotations

import contextlib
import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantization.data.images import Loader
from quantization.errors import UserError
from quantization.evaluation.coco import Metrics
from quantization.evaluation.summary import Summary
from quantization.options import QatOptions
from quantization.qat import run as training
from quantization.qat.progress import LossWatch, Progress
from quantization.qat.state import RunState, generators, read_state, restore_generators
from quantization.qat.trainer import take
from quantization.quantizers import backend as quantizer
from quantization.quantizers.modules import QuantConv2d
from quantization.signals import Stopped, StopSignals
from quantization.upstream import checkpoint
from quantization.upstream.record import CheckpointRecord

EPOCHS, STEPS, BATCHES = 3, 5, 3  # a pass ends within an epoch
START, MERGED = 0.5, [0.2, 0.5, 0.4]  # the second epoch is the best


class Net(nn.Module):
    """Two convolutions and a head, in the form that the trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten())

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)


def quantized() -> nn.Module:
    model = Net()
    quantizer.select_backend("native")
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = QuantConv2d
            module.add_quantizers()  # type: ignore[operator]  # it is a QuantConv2d now
            quantizer.set_amax(module._weight_quantizer, module.weight.abs().amax((1, 2, 3), keepdim=True))
            quantizer.set_amax(module._input_quantizer, torch.tensor(2.0))
    return model


class Data:
    """Shuffled batches, in the order of a ``Loader``, which reads no image here."""

    def __init__(self, position: tuple[int, int]) -> None:
        self.passes, self.skip = position

    def __iter__(self) -> Any:
        order = list(range(BATCHES))
        random.Random(self.passes).shuffle(order)
        first, self.skip, self.passes = self.skip, 0, self.passes + 1
        for number in order[first:]:
            generator = torch.Generator().manual_seed(number)
            yield torch.rand(2, 3, 8, 8, generator=generator), None


def figures(merged: float) -> Metrics:
    """The mean over classes rises from epoch to epoch, and must not choose the best one."""
    apart = {"merged": {"points": 100 * (merged - START), "plus_minus": 1.5}}
    return Metrics(0.9 - merged, 0.6, 1, {}, merged, against={"ptq": apart})


class Killed(Exception):
    """Stands for SIGKILL."""


def attempt(folder: Path, options: QatOptions, kill_after: int | None = None) -> training.QatRun:
    """Train from the state in ``folder``, if there is one; killed after so many steps."""
    file = folder / "state.pt"
    state = read_state(str(file), 0.0) or RunState(str(file), 0.0, {"stage": "ptq"})  # kept after every step
    record = CheckpointRecord([], "mse", "native", {}, {}, {})
    summary = Summary(str(folder / "summary.json"), {}, {}, "run", state.facts.get("summary"))
    start = figures(START)
    run = training.QatRun(options, str(folder / "qat.pt"), record, summary, lambda _: start, start, state)
    run.evaluate = lambda _: figures(MERGED[run.progress.epoch])
    if run.best is not None:
        content = torch.load(run.checkpoint, weights_only=False)
        run.kept = (content["model"], CheckpointRecord(**content["quant_tools"]))
    batches: Any = Data(run.progress.data_position(STEPS, BATCHES))
    if kill_after is not None:
        batches = Killing(batches, kill_after)
    try:
        run.train(quantized(), Net(), batches)
    except Killed:
        return attempt(folder, options, None if kill_after is None else kill_after + 1)
    return run


class Killing:
    """Batches of which the n-th, over all passes, kills."""

    def __init__(self, data: Data, steps: int) -> None:
        self.data, self.left = data, steps

    def __iter__(self) -> Any:
        for batch in self.data:
            if not self.left:
                raise Killed
            self.left -= 1
            yield batch


@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "learn_scales": True, "schedule": "steps"}], ids=["plain", "all"])
def test_any_interruption_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(training, "draw_curve", lambda *_: None)
    options = QatOptions(epochs=EPOCHS, iters=STEPS, lr=1e-3, **more)
    results = []
    for name, kill_after in (("whole", None), ("one", 1), ("four", 4), ("seven", 7)):
        (tmp_path / name).mkdir()
        run = attempt(tmp_path / name, options, kill_after)
        content = torch.load(run.checkpoint, weights_only=False)
        results.append((run.history, content["quant_tools"]["epoch"], content["model"].state_dict()))
    history, epoch, weights = results[0]
    assert epoch == 2 and [entry["merged"] for entry in history] == [START, *MERGED]
    assert [entry["epoch"] for entry in history] == list(range(EPOCHS + 1)) and history[0]["loss"] is None
    assert len({entry["loss"] for entry in history[1:]}) == EPOCHS
    for other_history, other_epoch, other_weights in results[1:]:
        assert other_history == history and other_epoch == epoch
        assert all(torch.equal(weights[key], other_weights[key]) for key in weights)


def test_positions_in_the_data_are_those_of_the_uninterrupted_run() -> None:
    """Counted by brute force: each epoch takes its steps from as many new passes as it needs."""
    for batches in (1, 2, 3, 5, 7):
        passes, expected = 0, {}
        for epoch in range(3):
            for step in range(5):
                if (step and step % batches == 0) or (not step and epoch):
                    passes += 1
                expected[epoch, step] = (passes, step % batches)
        found = {key: Progress(*key).data_position(5, batches) for key in expected}
        assert found == expected
        assert Progress(1, 5).data_position(5, batches) == expected[2, 0]


def test_a_loader_goes_on_in_the_middle_of_a_pass(tmp_path: Path) -> None:
    from PIL import Image

    files = [str(tmp_path / f"{number}.png") for number in range(7)]
    for number, file in enumerate(files):
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(file)

    def batches(count: int, passes: int = 0, skip: int = 0) -> list[Any]:
        loader = Loader(files, (32, 32), 2, 1, shuffle_seed=3, passes=passes, skip=skip)
        return [(batch.files, batch.flips, batch.images.tobytes()) for batch in take(loader, count)]  # type: ignore[arg-type]

    whole = batches(10)
    assert whole[0] != whole[4]
    assert batches(7, 0, 3) == whole[3:] and batches(4, 1, 2) == whole[6:]


def test_random_numbers_go_on(tmp_path: Path) -> None:
    def draw() -> list[Any]:
        return [float(torch.rand(1)), float(np.random.rand()), random.random(), random.gauss(0, 1), np.random.randn()]

    draw()
    state = RunState(str(tmp_path / "a.pt"), 1.0, {"stage": "ptq"})
    state.keep({})
    expected = draw()
    draw()
    found = read_state(str(tmp_path / "a.pt"))
    assert found is not None
    restore_generators(found.tensors["random"])
    assert draw() == expected and set(generators()) == {"torch", "cuda", "numpy", "python"}


def test_damaged_and_foreign_states_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    assert read_state(str(file)) is None
    RunState(str(file), 1.0, {"stage": "ptq"}).keep({})
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(UserError, match="--restart to discard it"):
            read_state(str(file))
    empty = {"format": 1, "facts": "{}", "tensors": {}}
    for other in ([1], {"a": 1}, {"format": 99}, empty, {"model": nn.Linear(1, 1)}):
        torch.save(other, str(file))
        with pytest.raises(UserError, match="--restart to discard it"):
            read_state(str(file))


def test_a_state_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = RunState(str(tmp_path / "a.pt"), 1.0, {"stage": "ptq"})
    state.keep({})
    before = (tmp_path / "a.pt").read_bytes()
    state.file = str(tmp_path / "a.pt" / "b.pt")
    state.keep({"stage": "qat"})
    state.keep({"stage": "qat"})
    assert sum("the run goes on" in message for message in caplog.messages) == 1
    assert (tmp_path / "a.pt").read_bytes() == before


@pytest.mark.parametrize("room_without_state", [True, False])
def test_on_a_full_disk_the_state_makes_room_for_the_last_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room_without_state: bool
) -> None:
    monkeypatch.setattr(training, "draw_curve", lambda *_: None)
    state, seen, save = tmp_path / "state.pt", [], checkpoint.save

    def on_a_full_disk(*arguments: Any) -> None:
        seen.append(state.read_bytes() if state.exists() else b"")
        if seen[-1] or not room_without_state:
            raise UserError("no space left")
        save(*arguments)

    monkeypatch.setattr(training.checkpoint, "save", on_a_full_disk)
    options = QatOptions(epochs=EPOCHS, iters=STEPS, lr=1e-3)
    if room_without_state:
        attempt(tmp_path, options)
        content = torch.load(tmp_path / "qat.pt", weights_only=False)
        assert content["quant_tools"]["epoch"] == 2 and not state.exists()
    else:
        with pytest.raises(UserError, match="no space left"):
            attempt(tmp_path, options)
        assert state.read_bytes() == seen[0] and not (tmp_path / "qat.pt").exists()
    assert all(seen[:-1]) and not seen[-1]
    assert sum("tried again after the next epoch" in message for message in caplog.messages) == EPOCHS


def test_a_signal_while_torch_writes_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's writer makes a RuntimeError of whatever its file raises."""
    signals = StopSignals()
    monkeypatch.setattr(checkpoint, "SIGNALS", signals)

    def save(*_: Any) -> None:
        with contextlib.suppress(Stopped):
            signals.receive(15)
        raise RuntimeError("unexpected pos 128 vs 0")

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(Stopped, match="SIGTERM"):
        checkpoint.write_pt(str(tmp_path / "a.pt"), {})
    assert list(tmp_path.iterdir()) == []


def test_progress_comes_back() -> None:
    progress = Progress(2, 3, torch.tensor(1.5), LossWatch(0.5, 0.25))
    assert Progress.of(progress.content()) == Progress(2, 3, 1.5, LossWatch(0.5, 0.25))
    assert copy.deepcopy(progress.content())["watch"] == {"first": 0.5, "last": 0.25}
