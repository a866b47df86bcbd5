"""Time engines against each other: CUDA graphs, back-to-back launches, several rounds with the engines interleaved.

A GPU's clock drifts with its temperature, so engines that are timed one after another are compared with the drift
included. Here every round times every engine for a short while, each second round in reverse order; ratios are taken
within a round and their median is reported.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from quantization.engine.cuda import Cuda
from quantization.engine.runtime import Engine
from quantization.engine.survivors import Survivors
from quantization.errors import UserError

EVENTS = 513  # start and end of at most 512 launches between two synchronizations
FIRST_LAUNCHES = 8  # launches that give the first estimate of the time of one


@dataclasses.dataclass(frozen=True)
class TimingOptions:
    """How engines are timed.

    Attributes:
        duration, warmup: seconds for each engine and round.
        rounds: number of rounds.
        cuda_graph, spin_wait: as in trtexec.
    """

    duration: float = 2.0
    warmup: float = 0.5
    rounds: int = 5
    cuda_graph: bool = True
    spin_wait: bool = True


@dataclasses.dataclass
class Round:
    """One engine in one round.

    Attributes:
        qps: batches per second, back to back.
        latency_ms: median GPU time of one batch.
        p99_ms: 99th percentile of it; None where it is not known.
        launches: batches timed; None where it is not known.
    """

    qps: float
    latency_ms: float
    p99_ms: float | None = None
    launches: int | None = None


def round_order(names: Sequence[str], rounds: int) -> list[list[str]]:
    """The order of the engines in each round: forwards and backwards in turn, which cancels a linear drift."""
    return [list(names) if index % 2 == 0 else list(reversed(names)) for index in range(rounds)]


def time_slice(
    cuda: Cuda, stream: int, launch: Callable[[], None], seconds: float, events: Sequence[int]
) -> np.ndarray:
    """Launch back to back for about ``seconds`` of GPU time.

    Args:
        cuda: gives the event calls.
        stream: stream that ``launch`` uses.
        launch: puts one inference on the stream.
        seconds: how long.
        events: at least two events; one fewer than their number is launched between two synchronizations.

    Returns:
        (N,) milliseconds of each launch, from the end of the launch before it to its own end.
    """
    times: list[float] = []
    total = 0.0
    while total < seconds * 1000:
        mean = total / len(times) if times else 0.0
        wanted = math.ceil((seconds * 1000 - total) / mean) if mean > 0 else FIRST_LAUNCHES
        count = max(1, min(wanted, len(events) - 1))
        launch()  # not timed: it keeps the GPU busy while the host queues the timed ones
        cuda.event_record(events[0], stream)
        for index in range(count):
            launch()
            cuda.event_record(events[index + 1], stream)
        cuda.event_synchronize(events[count])
        slices = [cuda.event_elapsed(events[index], events[index + 1]) for index in range(count)]
        times += slices
        total += sum(slices)
    return np.array(times)


def as_round(times_ms: np.ndarray) -> Round:
    """Statistics of one slice. Times (N,) in ms."""
    return Round(
        qps=1000 * len(times_ms) / float(times_ms.sum()),
        latency_ms=float(np.median(times_ms)),
        p99_ms=float(np.percentile(times_ms, 99)),
        launches=len(times_ms),
    )


def time_engines(
    engines: Mapping[str, Engine],
    cuda: Cuda,
    timed: TimingOptions,
    survivors: Survivors,
    report: Callable[[str], None] = print,
) -> tuple[dict[str, list[Round]], bool]:
    """Time engines in interleaved rounds, each on random pixels of the shape it is bound to.

    Args:
        engines: name to engine.
        cuda: CUDA runtime.
        timed: how long, how often, and whether to replay a captured graph instead of enqueueing.
        survivors: the engines that run; keeps why others do not.
        report: takes a line for each round.

    Returns:
        As ``complete_rounds``; and whether graphs were used: if one engine cannot be captured, none is.
    """
    running = _started(engines, cuda, survivors)
    graphs = capture_graphs(running, cuda, report) if timed.cuda_graph else {}
    events = [cuda.event_create() for _ in range(EVENTS if running else 0)]
    results: dict[str, list[Round]] = {name: [] for name in engines}
    try:
        for index, order in enumerate(round_order(list(running), timed.rounds), 1):
            for name in filter(survivors.runs, order):
                work = functools.partial(_time_round, cuda, running[name], graphs.get(name), timed, events)
                found = survivors.attempt(name, work)
                results[name] += [] if found is None else [found]
            speeds = [f"{name} {results[name][-1].qps:.1f} qps" for name in filter(survivors.runs, running)]
            if not speeds:
                break
            report(f"round {index}/{timed.rounds}: {', '.join(speeds)}")
    finally:
        for event in events:
            cuda.event_destroy(event)
        for graph in graphs.values():
            cuda.graph_destroy(graph)
    return complete_rounds(results, survivors), bool(graphs)


def _started(engines: Mapping[str, Engine], cuda: Cuda, survivors: Survivors) -> dict[str, Engine]:
    """The engines that have run once: TensorRT does its lazy setup then, which a capture would break."""
    for name, engine in engines.items():
        survivors.attempt(name, functools.partial(_first_run, engine, cuda))
    return {name: engines[name] for name in filter(survivors.runs, engines)}


def _first_run(engine: Engine, cuda: Cuda) -> None:
    engine.fill()
    engine.enqueue()
    cuda.stream_synchronize(engine.stream)


def _time_round(cuda: Cuda, engine: Engine, graph: int | None, timed: TimingOptions, events: Sequence[int]) -> Round:
    """Time one engine in one round, by its graph where there is one."""
    launch = engine.enqueue if graph is None else functools.partial(cuda.graph_launch, graph, engine.stream)
    time_slice(cuda, engine.stream, launch, timed.warmup, events)
    return as_round(time_slice(cuda, engine.stream, launch, timed.duration, events))


def complete_rounds(results: Mapping[str, list[Round]], survivors: Survivors) -> dict[str, list[Round]]:
    """Of the engines that have not failed the rounds that all of them ran, which ratios are taken in.

    Engines without one are left out, as they are where another ended CUDA in the first round.
    """
    kept = {name: rounds for name, rounds in results.items() if name not in survivors.problems}
    count = min(map(len, kept.values()), default=0)
    if count:
        return {name: rounds[:count] for name, rounds in kept.items()}
    for name in kept:
        survivors.leave_out(name)
    return {}


def capture_graphs(engines: Mapping[str, Engine], cuda: Cuda, report: Callable[[str], None]) -> dict[str, int]:
    """A graph of one inference of each engine, by name; none at all if one engine cannot be captured."""
    graphs: dict[str, int] = {}
    try:
        for name, engine in engines.items():
            graphs[name] = cuda.graph_capture(engine.stream, engine.enqueue)
    except UserError as error:
        report(f"no CUDA graphs, all engines are enqueued instead: {error}")
        for graph in graphs.values():
            cuda.graph_destroy(graph)
        return {}
    return graphs


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": float(np.median(values)), "min": float(min(values)), "max": float(max(values))}


def summarize(results: Mapping[str, Sequence[Round]], reference: str, batch: int) -> dict[str, dict[str, Any]]:
    """The figures of each engine over its rounds.

    Args:
        results: name to rounds, as many for each engine.
        reference: the engine that ratios are taken to.
        batch: images in a batch.

    Returns:
        name to ``qps`` (batches per second), ``images_per_s``, ``latency_ms``, ``ratio`` (qps to the reference's in the
        same round), each with median, min and max over the rounds, and the ``rounds`` themselves.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name, rounds in results.items():
        qps = [item.qps for item in rounds]
        summary[name] = {
            "qps": spread(qps),
            "images_per_s": spread([batch * value for value in qps]),
            "latency_ms": spread([item.latency_ms for item in rounds]),
            "ratio": spread([item.qps / other.qps for item, other in zip(rounds, results[reference])]),
            "rounds": [dataclasses.asdict(item) for item in rounds],
        }
    return summary
