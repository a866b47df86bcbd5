"""trtexec's command lines for what bench-engine.py would build, on a machine without TensorRT: the ONNX says the rest."""

from __future__ import annotations

import dataclasses
import os
import shlex
from typing import Iterator, Sequence

import onnx
from onnx import TensorProto

from quantization.engine.build import check_precision
from quantization.engine.options import BuildOptions, Shape, resolve_shapes
from quantization.engine.specs import EngineSpec, trtexec_line
from quantization.engine.timing import TimingOptions
from quantization.engine.versions import Version, deprecates_weak_typing, highest_opset
from quantization.errors import UserError
from quantization.onnx_graph.load import load_onnx
from quantization.preflight.operators import QDQ


def dry_run(specs: Sequence[EngineSpec], timed: TimingOptions, version: Version) -> Iterator[tuple[str, list[str]]]:
    """For each engine the line that builds what bench-engine.py would, and what to know of it.

    An engine that no --save-engine keeps is written to NAME.plan: trtexec would throw it away.

    Args:
        specs: the engines.
        timed: how they would be timed.
        version: of the TensorRT that is to run the lines.

    Yields:
        The line and notes.

    Raises:
        UserError: an ONNX is missing or does not fit its mode, or that version cannot do it.
    """
    for spec in specs:
        if spec.onnx is None:
            if spec.options.batch is not None and not spec.options.shapes:
                raise UserError(
                    f"--batch: the input's name of {spec.plan} is not known without TensorRT: give --shapes "
                    "images:BATCHx3xHEIGHTxWIDTH instead"
                )
            yield shlex.join(trtexec_line(spec, timed, version)), []
            continue
        model = load_onnx(spec.onnx)
        profile = resolve_shapes(input_shapes(model), spec.options, spec.onnx)
        typed = spec.options.is_typed(version)
        note = check_precision(is_quantized(model), has_half(model), spec.options.mode, typed, spec.onnx)
        kept = spec if spec.plan else dataclasses.replace(spec, plan=f"{spec.name}.plan")
        notes = [*([note] if note else []), *_opset_notes(model, spec.onnx, version)]
        yield shlex.join(trtexec_line(kept, timed, version, profile=profile)), notes + _notes(spec.options, version)


def _opset_notes(model: onnx.ModelProto, file: str, version: Version) -> list[str]:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    highest, (major, minor, _) = highest_opset(version), version
    if opset <= highest:
        return []
    return [
        f"{file} has opset {opset}, and TensorRT {major}.{minor} documents {highest} at most: export it with "
        f"--target-tensorrt {major}.{minor}"
    ]


def _notes(options: BuildOptions, version: Version) -> list[str]:
    notes = []
    if options.mode == "ptq" and not os.path.isfile(options.calib_cache or ""):
        notes.append(
            "trtexec cannot calibrate with images, and takes random scales without a cache: run bench-engine.py once with "
            "--calib-images and --calib-cache FILE, and give that file"
        )
    if deprecates_weak_typing(version) and not options.is_typed(version):
        notes.append(
            "--fp16 and --int8 are deprecated from TensorRT 10.12 on and gone in 11: export with --fp16-remainder and give "
            "--strongly-typed"
        )
    return notes


def input_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shape of each input, -1 for an open dimension, as TensorRT's parser gives them."""
    weights = {entry.name for entry in model.graph.initializer}
    return {
        value.name: tuple(side.dim_value if side.HasField("dim_value") else -1 for side in _sides(value))
        for value in model.graph.input
        if value.name not in weights
    }


def _sides(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return value.type.tensor_type.shape.dim


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether there is any Q/DQ."""
    return any(node.op_type in QDQ for node in model.graph.node)


def has_half(model: onnx.ModelProto) -> bool:
    """Whether any tensor is FP16: weights are, or something is cast to it."""
    return any(entry.data_type == TensorProto.FLOAT16 for entry in model.graph.initializer) or any(
        node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT16 for a in node.attribute)
        for node in model.graph.node
    )
