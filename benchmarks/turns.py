"""Time several actions in one run: they take turns, so that a change in the machine's speed affects all of them."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any, Callable, Mapping, NamedTuple


class Timing(NamedTuple):
    """Figures of one action.

    Attributes:
        seconds: median per call.
        fastest: fastest turn, seconds per call.
        slowest: slowest turn, seconds per call.
        memory_mib: peak of the memory that torch has allocated on the GPU during a turn, MiB; 0 on a CPU.
    """

    seconds: float
    fastest: float
    slowest: float
    memory_mib: float

    def __str__(self) -> str:
        memory = f", {self.memory_mib:.0f} MiB" if self.memory_mib else ""
        return f"{1000 * self.seconds:.2f} ms ({1000 * self.fastest:.2f} to {1000 * self.slowest:.2f}){memory}"


def take_turns(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    repeats: int = 1,
    contexts: Mapping[str, Callable[[], Any]] = {},
) -> dict[str, Timing]:
    """Time actions in turns, after an uncounted warm-up round.

    Args:
        actions: by name.
        rounds: turns of each.
        repeats: calls per turn.
        contexts: by name: makes a context that is entered around a turn, outside the timing.
    """
    import torch

    cuda = torch.cuda.is_available()
    times: dict[str, Any] = {name: [] for name in actions}
    peaks: dict[str, Any] = {name: [0] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            with contexts.get(name, contextlib.nullcontext)():
                if cuda:
                    torch.cuda.synchronize()
                    torch.cuda.reset_peak_memory_stats()
                begin = time.perf_counter()
                for _ in range(repeats):
                    action()
                if cuda:
                    torch.cuda.synchronize()
                if number:
                    times[name].append((time.perf_counter() - begin) / repeats)
                    peaks[name].append(torch.cuda.max_memory_allocated() if cuda else 0)
    return {
        name: Timing(statistics.median(times[name]), min(times[name]), max(times[name]), max(peaks[name]) / 2**20)
        for name in actions
    }


def machine() -> str:
    """PyTorch's version and the device, for the output."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {device}"
