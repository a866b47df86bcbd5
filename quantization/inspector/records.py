"""An engine as records: its layers and their tensors, with the facts about each layer computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Sequence

from quantization.inspector.classify import FLOATS, PRECISIONS, QUANTIZED, kind_of
from quantization.inspector.names import (
    common_module,
    computing_nodes,
    computing_title,
    metadata_nodes,
    named_nodes,
    operations,
    other_title,
)


@dataclass(frozen=True)
class Tensor:
    """A tensor as one layer reads or writes it.

    Attributes:
        name: as in the engine.
        shape: -1 for a dynamic dimension.
        datatype: ``Int8``, ``FP16``, ``FP32`` ...; empty if not given.
        layout: ``linear``, ``NHWC8``, ``NC/32HW32`` ...; empty if not given.
    """

    name: str
    shape: tuple[int, ...] = ()
    datatype: str = ""
    layout: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.datatype, self.layout, "x".join(map(str, self.shape))) if part)

    @property
    def format(self) -> str:
        """Datatype and layout: ``Int8 NC/32HW32``."""
        return f"{self.datatype} {self.layout}".strip()


@dataclass(frozen=True, eq=False)  # two layers may look alike: a layer equals only itself
class Layer:
    """One layer of an engine.

    Attributes:
        index: position in ``EngineInfo.layers``.
        type: TensorRT's layer type, for example ``CaskConvolution``.
        origin: why a Reformat exists (``QDQ``, ``CONCAT``, ``REFORMAT`` ...); empty for other layers.
        metadata: names the ONNX nodes, from TensorRT 8.6 on.
        record: the JSON object.
        time_ms: time of one inference; None without a profile.
    """

    index: int
    name: str
    type: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    origin: str = ""
    metadata: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    time_ms: float | None = None

    @cached_property
    def kind(self) -> str:
        """One of ``classify.KINDS``."""
        return kind_of(self.type, metadata_nodes(self.metadata))

    @cached_property
    def precision(self) -> str:
        """One of ``classify.PRECISIONS``: what the layer computes in, that is the type of its first input."""
        tensors = self.inputs or self.outputs
        datatype = tensors[0].datatype if tensors else ""
        return datatype if datatype in PRECISIONS else "other"

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The computing ONNX nodes fused into the layer, as ``names.computing_nodes`` writes them.

        The metadata name them from TensorRT 8.6 on; before, the layer's own name does. A Reformat's name only says
        where it stands, so it counts for nothing.
        """
        found = metadata_nodes(self.metadata)
        if not found and "reformat" not in self.type.lower() and self.type.lower() != "noop":
            found = named_nodes(self.name)
        return computing_nodes(found)

    @cached_property
    def operations(self) -> list[str]:
        """What the nodes do, in words: ``["Conv", "SiLU"]``."""
        return operations(self.nodes)

    @cached_property
    def module(self) -> str:
        """The upstream module that holds all nodes; empty if there is none."""
        return common_module(self.nodes)

    @cached_property
    def title(self) -> str:
        """A short title: ``model.5: Conv + SiLU``."""
        if "reformat" in self.type.lower() or not self.nodes:
            return other_title(self.name, self.origin, self.nodes)
        return computing_title(self.nodes)

    @cached_property
    def is_reformat(self) -> bool:
        """Does it only convert or copy: a Reformat, or a Q or DQ in a kernel of its own?"""
        return self.kind in ("reformat", "quantize")

    @cached_property
    def passes_on(self) -> bool:
        """Does it hand its input on, converted or copied: a Reformat or a no-op?"""
        return self.is_reformat or self.kind == "no-op"

    @cached_property
    def keeps_scale(self) -> bool:
        """Do its input and output have one scale: a Reformat, a pool, a Resize ...?"""
        return self.kind in ("reformat", "pooling", "resize", "shuffle", "no-op", "concat")

    @cached_property
    def type_change(self) -> tuple[str, str] | None:
        """(from, to) of a Reformat that changes the type; None for any other layer."""
        if not self.is_reformat or not self.inputs or not self.outputs:
            return None
        before, after = self.inputs[0].datatype, self.outputs[0].datatype
        return (before, after) if before and after and before != after else None

    @property
    def quantizes(self) -> bool:
        """Is it a Q that became a layer of its own?"""
        change = self.type_change
        return change is not None and change[0] in FLOATS and change[1] in QUANTIZED

    @property
    def dequantizes(self) -> bool:
        """Is it a DQ that became a layer of its own?"""
        change = self.type_change
        return change is not None and change[0] in QUANTIZED and change[1] in FLOATS

    @property
    def rescales(self) -> bool:
        """Is it a DQ and Q with different scales, in one Reformat from INT8 to INT8?"""
        return self.is_reformat and self.reason == "QDQ" and self.type_change is None

    @property
    def reason(self) -> str:
        """Why a Reformat exists: TensorRT's word, or ``unnamed`` where it gives none (MyelinReformat)."""
        return self.origin or ("QDQ" if self.kind == "quantize" else "unnamed")

    @property
    def computes_in_float(self) -> bool:
        """Is its first input a float tensor?"""
        return self.precision in FLOATS

    @property
    def emits_float(self) -> bool:
        """Is its first output a float tensor?"""
        return bool(self.outputs) and self.outputs[0].datatype in FLOATS

    @property
    def is_sum(self) -> bool:
        """Is an addition among what it computes?"""
        return "Add" in self.operations

    @property
    def is_strided(self) -> bool:
        """Is its output smaller than its input in height or width?"""
        if not self.inputs or not self.outputs:
            return False
        return any(0 < after < before for before, after in zip(self.inputs[0].shape[2:], self.outputs[0].shape[2:]))


@dataclass(frozen=True)
class EngineInfo:
    """Layers of an engine in the order of execution.

    Attributes:
        bindings: names of the network's input and output tensors.
        notes: remarks for the reader, for example layers without a time.
        profile: number of the optimization profile that the layers belong to.
    """

    name: str
    layers: Sequence[Layer]
    bindings: Sequence[str]
    notes: Sequence[str] = ()
    profile: int = 0

    @property
    def timed(self) -> bool:
        """Do its layers have times?"""
        return any(layer.time_ms is not None for layer in self.layers)

    @property
    def total_ms(self) -> float:
        """Time of all layers; 0 without a profile."""
        return time_ms(self.layers)


def time_ms(layers: Sequence[Layer]) -> float:
    """Time of some layers; 0 without a profile."""
    return sum(layer.time_ms or 0.0 for layer in layers)
