"""Per-layer times and layer information of an engine, as JSON.

The formats are those of trtexec's exportProfile and exportLayerInfo, which draw-engine.py and trt-engine-explorer read.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from quantization.engine.cuda import Cuda
from quantization.engine.runtime import Engine
from quantization.engine.versions import import_tensorrt
from quantization.errors import UserError
from quantization.files import atomic_write


def measure_layers(engine: Engine, cuda: Cuda, iterations: int = 100, warmup: int = 10) -> dict[str, list[float]]:
    """Time every layer in a run of its own.

    A profiler synchronizes after each layer, so it cannot be captured into a graph, and its sum exceeds the engine's
    latency.

    The profiler stays on the engine's context (up to TensorRT 8.6 a second context of a dynamic engine would need an
    optimization profile of its own), so do everything else with the engine before.

    Args:
        engine: bound to the shape to profile.
        cuda: CUDA runtime.
        iterations: runs that count.
        warmup: runs before them.

    Returns:
        Layer name to the milliseconds of each run, in the order of execution.
    """
    import_tensorrt()  # a clear error where it is missing
    import tensorrt as trt

    times: dict[str, list[float]] = {}

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    engine.context.profiler = Profiler()
    for index in range(warmup + iterations):
        if index == warmup:
            times.clear()
        engine.enqueue()
        cuda.stream_synchronize(engine.stream)
    if not times:
        raise UserError(f"{engine.name}: TensorRT reported no layer times: build the engine again with this tool")
    return times


def profile_records(times: dict[str, list[float]], iterations: int) -> list[dict[str, Any]]:
    """The profile as trtexec writes it: a count, then for each layer total, average and median ms and the share of the total."""
    total = sum(sum(values) for values in times.values())
    records: list[dict[str, Any]] = [{"count": iterations}]
    for name, values in times.items():
        layer = sum(values)
        records.append(
            {
                "name": name,
                "timeMs": layer,
                "averageMs": layer / len(values),
                "medianMs": float(np.median(values)),
                "percentage": 100 * layer / total if total else 0.0,
            }
        )
    return records


def export_profile(engine: Engine, cuda: Cuda, path: str, iterations: int = 100) -> None:
    """Profile an engine and write the JSON file."""
    records = profile_records(measure_layers(engine, cuda, iterations), iterations)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(records, file, indent=1)


def export_layer_info(engine: Engine, path: str) -> None:
    """Write what TensorRT's inspector says of every layer, with the shapes of the bound input."""
    trt = import_tensorrt()
    inspector = engine.engine.create_engine_inspector()
    inspector.execution_context = engine.context  # fills in dynamic shapes
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
